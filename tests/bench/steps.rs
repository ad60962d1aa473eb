//! The group `loop`: steps of the bare loop, with our kernels and with ONNX Runtime's.

use crate::args::Kind;
use crate::bare::Bare;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// Rows that are stepped together.
const ROWS: [usize; 4] = [1, 2, 4, 8];
/// Tokens that a row has consumed before it is stepped, where positions are compared.
const POSITIONS: [u64; 3] = [1_000, 100_000, 1_000_000];
/// The position at which numbers of rows are compared: beyond the window, so that attention does all of its work.
const POSITION: u64 = 3_000;
/// Lengths of prompts.
const PROMPTS: [usize; 2] = [128, 2_048];

/// What is stepped: so many rows at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    rows: usize,
    position: u64,
}

/// Samples of one case, one of each kind of kernels in each round.
#[derive(Debug, Clone, Default)]
struct Taken {
    /// Seconds a step.
    seconds: [Samples; 2],
    /// Bytes a second that the machine read beside them.
    bandwidth: [Samples; 2],
}

/// The group `loop`.
///
/// # Errors
/// The graph cannot be loaded, or a step failed.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    progress(&format!("{}: loop: loading", subject.name()));
    let most = ROWS.into_iter().max().unwrap_or(1);
    let load = |kind| Bare::load(subject, kind, most, bench.threads);
    let mut kinds = [load(Kind::Recurve)?, load(Kind::Onnxruntime)?];
    let tables = vec![
        rows(bench, subject, &mut kinds)?,
        positions(bench, subject, &mut kinds)?,
        prompts(bench, subject, &mut kinds)?,
    ];
    Ok(tables)
}

/// Steps every case with both kinds in turn, round after round.
fn rounds(bench: &mut Bench, kinds: &mut [Bare; 2], cases: &[Case]) -> Result<Vec<Taken>, Failure> {
    let mut counts = Vec::new();
    for case in cases {
        let mut steps = [1; 2];
        for (steps, kind) in steps.iter_mut().zip(kinds.iter_mut()) {
            *steps = bench.effort.steps(kind.step_time(case.rows, case.position)?);
        }
        counts.push(steps);
    }
    let mut taken = vec![Taken::default(); cases.len()];
    let mut before = bench.bandwidth.pass();
    for _ in 0..bench.effort.rounds {
        for ((case, taken), counts) in cases.iter().zip(&mut taken).zip(&counts) {
            for (i, kind) in kinds.iter_mut().enumerate() {
                taken.seconds[i].push(kind.visit(case.rows, case.position, counts[i])?);
                let after = bench.bandwidth.pass();
                taken.bandwidth[i].push(f64::midpoint(before, after));
                before = after;
            }
        }
    }
    Ok(taken)
}

/// 1, 2, 4 and 8 rows.
fn rows(bench: &mut Bench, subject: &Subject, kinds: &mut [Bare; 2]) -> Result<Table, Failure> {
    progress(&format!("{}: loop: decode, 1 to 8 rows", subject.name()));
    let cases = ROWS.map(|rows| Case { rows, position: POSITION });
    let taken = rounds(bench, kinds, &cases)?;
    let mut table = Table::new(format!(
        "decode at position 3,000, {} threads, kernels {} and {}",
        bench.threads,
        kinds[0].kernels(),
        kinds[1].kernels()
    ))
    .note(format!(
        "A step reads {:.3} GB of weights. The roofline is the bandwidth, measured before and after each sample, over that{}.",
        subject.weight_bytes as f64 / 1e9,
        if subject.is_small() { "; these weights fit into caches, so it says nothing here" } else { "" }
    ));
    for (case, of) in cases.iter().zip(&taken) {
        table.push(row_line(*case, of, &taken[0], subject));
    }
    Ok(table)
}

fn row_line(case: Case, of: &Taken, one: &Taken, subject: &Subject) -> Line {
    let [ours, theirs] = &of.seconds;
    let rows = case.rows as f64;
    let speed = |seconds: &Samples| seconds.map(|seconds| rows / seconds);
    let share = |kind: usize| {
        of.seconds[kind].pair(&of.bandwidth[kind], |seconds, read| 100.0 * subject.weight_bytes as f64 / seconds / read)
    };
    let against_one = |kind: usize| of.seconds[kind].pair(&one.seconds[kind], |all, one| rows * one / all);
    let mut line = Line::new()
        .of("rows", case.rows)
        .figure("ours", Unit::TokensPerSecond, &speed(ours))
        .figure("ONNX Runtime's", Unit::TokensPerSecond, &speed(theirs))
        .figure("ours against ONNX Runtime's", Unit::Times, &theirs.pair(ours, |theirs, ours| theirs / ours));
    if !subject.is_small() {
        line = line.figure("ours, of the roofline", Unit::Percent, &share(0)).figure(
            "ONNX Runtime's, of the roofline",
            Unit::Percent,
            &share(1),
        );
    }
    match case.rows {
        1 => line,
        _ => line.figure("ours against 1 row", Unit::Times, &against_one(0)).figure(
            "ONNX Runtime's against 1 row",
            Unit::Times,
            &against_one(1),
        ),
    }
}

/// One row at positions far apart.
fn positions(bench: &mut Bench, subject: &Subject, kinds: &mut [Bare; 2]) -> Result<Table, Failure> {
    progress(&format!("{}: loop: decode, positions 1,000 to 1,000,000", subject.name()));
    let cases = POSITIONS.map(|position| Case { rows: 1, position });
    let taken = rounds(bench, kinds, &cases)?;
    let window = subject.bundle.info().window;
    let mut table = Table::new(format!("decode of one row, {} threads", bench.threads)).note(format!(
        "A row is placed at its position. Attention looks back {window} tokens; at a position below that it has less to do."
    ));
    for (case, of) in cases.iter().zip(&taken) {
        let [ours, theirs] = &of.seconds;
        let against_first =
            |kind: usize| of.seconds[kind].pair(&taken[0].seconds[kind], |here, first| 100.0 * (here / first - 1.0));
        let line = Line::new()
            .of("position", case.position)
            .figure("ours", Unit::TokensPerSecond, &ours.map(f64::recip))
            .figure("ONNX Runtime's", Unit::TokensPerSecond, &theirs.map(f64::recip));
        table.push(match *case == cases[0] {
            true => line,
            false => line.figure("ours, time beyond that at 1,000", Unit::Percent, &against_first(0)).figure(
                "ONNX Runtime's, time beyond that at 1,000",
                Unit::Percent,
                &against_first(1),
            ),
        });
    }
    Ok(table)
}

/// Reading prompts into one row.
fn prompts(bench: &mut Bench, subject: &Subject, kinds: &mut [Bare; 2]) -> Result<Table, Failure> {
    let chunk = subject.bundle.info().max_chunk;
    let mut table = Table::new(format!("prefill of one row in chunks of {chunk}, {} threads", bench.threads));
    for (tokens, rounds) in PROMPTS.into_iter().zip(bench.effort.prompts) {
        progress(&format!("{}: loop: prefill of {tokens} tokens", subject.name()));
        let mut seconds = [Samples::default(), Samples::default()];
        for round in 0..=rounds {
            for (kind, seconds) in kinds.iter_mut().zip(&mut seconds) {
                match round {
                    // A short one warms up for both.
                    0 => drop(kind.prefill(tokens.min(PROMPTS[0]))?),
                    _ => seconds.push(kind.prefill(tokens)?),
                }
            }
        }
        let speed = |seconds: &Samples| seconds.map(|seconds| tokens as f64 / seconds);
        let [ours, theirs] = &seconds;
        table.push(
            Line::new()
                .of("prompt", tokens)
                .figure("ours", Unit::TokensPerSecond, &speed(ours))
                .figure("ONNX Runtime's", Unit::TokensPerSecond, &speed(theirs))
                .figure("ours against ONNX Runtime's", Unit::Times, &theirs.pair(ours, |theirs, ours| theirs / ours)),
        );
    }
    Ok(table)
}
