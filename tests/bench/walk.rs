//! The group `walk`: one row taken forward through every position, its time and the process's memory on the way.

use std::time::Instant;

use crate::args::Kind;
use crate::bare::Bare;
use crate::machine::memory;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// Tokens over which the median is taken.
const STRETCH: u64 = 1_000;

/// The group `walk`.
///
/// # Errors
/// The graph cannot be loaded, or a step failed.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    let tokens = bench.effort.walk;
    progress(&format!("{}: walk of {tokens} tokens", subject.name()));
    let mut bare = Bare::load(subject, Kind::Recurve, 1, bench.threads)?;
    let mut table = Table::new(format!(
        "one row walks {tokens} tokens, {} threads, kernels {}",
        bench.threads,
        bare.kernels()
    ))
    .note(
        "Times are those of the last 1,000 steps. Memory is what the process has taken since it made the first 1,000.",
    );
    let shown = [STRETCH, tokens / 2, tokens];
    let mut stretch = Samples::default();
    let mut at_first = None;
    for position in 0..tokens {
        if position.is_multiple_of(STRETCH) {
            stretch = Samples::default();
        }
        let begun = Instant::now();
        bare.decode(1, position)?;
        stretch.push(begun.elapsed().as_secs_f64() * 1e6);
        if shown.contains(&(position + 1)) {
            let anonymous = memory(std::process::id())?.anonymous;
            let more = anonymous - *at_first.get_or_insert(anonymous);
            let line = Line::new().of("position", position + 1).figure("step", Unit::Microseconds, &stretch);
            table.push(line.single("more anonymous memory", Unit::Megabytes, more / 1e6));
        }
    }
    Ok(vec![table])
}
