//! From the start of the process to the first token, and the memory of a daemon that has served.

use std::time::{Duration, Instant};

use recurve_bundle::file;
use recurve_tests::client;
use recurve_tests::client::{connect, greedy};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Status;

use super::client::generate;
use super::{PROMPT, setup, wait};
use crate::machine::memory;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// Rows of the daemons whose memory is told.
const SLOTS: [usize; 2] = [1, 8];
/// Tokens of the prompts that they have read before: several chunks.
const READ: u32 = 300;

/// Starts daemons and asks each at once.
pub(super) fn to_the_first_token(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let (mut ready, mut first) = (Samples::default(), Samples::default());
    for _ in 0..bench.effort.starts {
        let begun = Instant::now();
        let daemon = setup(bench, subject).start_loading();
        let client = runtime.block_on(connect(&daemon));
        daemon.wait_for("ready");
        ready.push(milliseconds(begun.elapsed()));
        let mut stream = wait(runtime, client::begin(&client, greedy(&PROMPT, 1)))?;
        wait(runtime, stream.until(1))?;
        first.push(milliseconds(begun.elapsed()));
    }
    let mut table = Table::new(format!("start of the daemon, weights in the page cache, {} threads", bench.threads)).note(
        match subject.bundle.file(file::TOKENIZER) {
            Some(tokenizer) => format!(
                "The prompt has {} tokens. The bundle has a tokenizer of {:.1} MB, which is read at the start.",
                PROMPT.len(),
                tokenizer.size as f64 / 1e6
            ),
            None => format!(
                "The prompt has {} tokens. The bundle has no tokenizer; to read one takes time that is not in these figures.",
                PROMPT.len()
            ),
        },
    );
    table.push(Line::new().figure("until ready", Unit::Milliseconds, &ready).figure(
        "until the first token",
        Unit::Milliseconds,
        &first,
    ));
    Ok(table)
}

/// Anonymous and resident memory after every row has read a prompt and made tokens.
pub(super) fn memory_after_serving(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let mut table = Table::new(format!("memory of the daemon after serving, {} threads", bench.threads)).note(
        "Every row has read a prompt of 300 tokens and made tokens; resident memory has the mapped weights in it.",
    );
    for slots in SLOTS {
        let daemon = setup(bench, subject).set("engine.slots", slots).start();
        let client = runtime.block_on(connect(&daemon));
        wait(runtime, serve(&client, slots, bench.effort.tokens))?;
        let memory = memory(daemon.pid())?;
        table.push(Line::new().of("slots", slots).single("anonymous", Unit::Megabytes, memory.anonymous / 1e6).single(
            "resident",
            Unit::Megabytes,
            memory.resident / 1e6,
        ));
    }
    Ok(table)
}

/// As many generations at once as there are rows.
async fn serve(client: &client::Client, rows: usize, tokens: u32) -> Result<(), Status> {
    let mut streams = JoinSet::new();
    for _ in 0..rows {
        let client = client.clone();
        let prompt: Vec<u32> = (0..READ).map(|i| PROMPT[i as usize % PROMPT.len()]).collect();
        streams.spawn(async move { generate(&client, &prompt, tokens).await.map(drop) });
    }
    while let Some(done) = streams.join_next().await {
        done.map_err(|error| Status::internal(error.to_string()))??;
    }
    Ok(())
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
