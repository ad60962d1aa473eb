//! The group `daemon`: a real `recurved`, asked over gRPC on loopback.

mod cancel;
mod client;
mod share;
mod start;
mod streams;

use recurve_tests::daemon::Setup;
use tokio::runtime::{Builder, Runtime};

use crate::report::Table;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// The beginning of every generation: tokens, because random weights come without a tokenizer.
const PROMPT: [u32; 8] = [2, 10, 20, 30, 40, 50, 60, 70];

/// The group `daemon`.
///
/// # Errors
/// A request failed, or the bare loop beside it.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    let vocabulary = subject.bundle.info().vocab_size;
    if PROMPT.iter().any(|&id| id >= vocabulary) {
        return Err(format!("{} has {vocabulary} tokens; the prompts need more", subject.name()).into());
    }
    // One thread for the client: what it computes is little, and the cores are the daemon's.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let say = |what: &str| progress(&format!("{}: daemon: {what}", subject.name()));
    say("beside the bare loop");
    let share = share::beside_the_bare_loop(bench, subject, &runtime)?;
    say("beside a busy thread");
    let busy = share::beside_a_busy_thread(bench, subject, &runtime)?;
    say("1 to 8 streams");
    let streams = streams::measure(bench, subject, &runtime)?;
    say("start and memory");
    let start = start::to_the_first_token(bench, subject, &runtime)?;
    let memory = start::memory_after_serving(bench, subject, &runtime)?;
    say("cancelled requests");
    let cancel = cancel::measure(bench, subject, &runtime)?;
    Ok(vec![share, busy, streams, start, memory, cancel])
}

/// A daemon on its defaults, but for the threads.
fn setup(bench: &Bench, subject: &Subject) -> Setup {
    Setup::new(subject.bundle.dir()).set("engine.threads", bench.threads)
}

/// Runs one measurement to its end.
fn wait<T>(runtime: &Runtime, future: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, Failure> {
    runtime
        .block_on(future)
        .map_err(|status| format!("the daemon answered {}: {}", status.code(), status.message()).into())
}
