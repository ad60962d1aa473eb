//! How much of the bare loop's speed arrives at a client, and how much of that is left beside other work.

use std::sync::atomic::{AtomicBool, Ordering};

use recurve_tests::client::connect;
use tokio::runtime::Runtime;

use super::client::generate;
use super::{PROMPT, setup, wait};
use crate::args::Kind;
use crate::bare::Bare;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// Rows of the daemon, by default.
const SLOTS: usize = 4;

/// The same greedy generation by the bare loop and through the daemon, in turn.
pub(super) fn beside_the_bare_loop(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let tokens = bench.effort.tokens;
    let daemon = setup(bench, subject).start();
    let kernels = daemon.wait_for("graph loaded")["kernels"].as_str().unwrap_or_default().to_owned();
    let kind = if kernels == Kind::Onnxruntime.name() { Kind::Onnxruntime } else { Kind::Recurve };
    let mut bare = Bare::load(subject, kind, SLOTS, bench.threads)?;
    let client = runtime.block_on(connect(&daemon));
    let (mut alone, mut served) = (Samples::default(), Samples::default());
    // The first pair warms both up.
    for pair in 0..=bench.effort.pairs {
        // Whoever goes first changes from pair to pair.
        let first = pair.is_multiple_of(2).then(|| bare.generate(&PROMPT, tokens)).transpose()?;
        let through = wait(runtime, generate(&client, &PROMPT, tokens))?.seconds_a_token();
        let own = first.map_or_else(|| bare.generate(&PROMPT, tokens), Ok)?;
        if pair > 0 {
            alone.push(own);
            served.push(through);
        }
    }
    let mut table = Table::new(format!("one stream of {tokens} tokens, {} threads, kernels {kernels}", bench.threads))
        .note("The bare loop and the daemon make the same greedy generation in turn; times are from the first token to the last.");
    table.push(
        Line::new()
            .figure("bare loop", Unit::TokensPerSecond, &alone.map(f64::recip))
            .figure("daemon", Unit::TokensPerSecond, &served.map(f64::recip))
            .figure("added a token", Unit::Microseconds, &served.pair(&alone, |served, alone| (served - alone) * 1e6))
            .figure(
                "daemon, of the bare loop",
                Unit::Percent,
                &served.pair(&alone, |served, alone| 100.0 * alone / served),
            ),
    );
    Ok(table)
}

/// A stream on the quiet machine and beside one thread that is always busy, in turn.
pub(super) fn beside_a_busy_thread(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let tokens = bench.effort.tokens;
    let daemon = setup(bench, subject).start();
    let client = runtime.block_on(connect(&daemon));
    let speed = || Ok::<_, Failure>(wait(runtime, generate(&client, &PROMPT, tokens))?.seconds_a_token().recip());
    speed()?;
    let (mut quiet, mut busy) = (Samples::default(), Samples::default());
    for _ in 0..bench.effort.pairs {
        quiet.push(speed()?);
        busy.push(beside_work(speed)?);
    }
    let mut table =
        Table::new(format!("one stream of {tokens} tokens beside one busy thread, {} threads", bench.threads));
    table.push(
        Line::new().figure("quiet", Unit::TokensPerSecond, &quiet).figure("busy", Unit::TokensPerSecond, &busy).figure(
            "busy, of quiet",
            Unit::Percent,
            &busy.pair(&quiet, |busy, quiet| 100.0 * busy / quiet),
        ),
    );
    Ok(table)
}

/// Does something while another thread keeps a core busy.
fn beside_work<T>(work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}
