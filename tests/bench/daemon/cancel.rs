//! How soon the row of a client that goes away is another's.

use std::time::{Duration, Instant};

use recurve_tests::client::{self, Client, Stream, begin, connect, greedy};
use tokio::runtime::Runtime;
use tonic::Status;

use super::start::milliseconds;
use super::{PROMPT, setup, wait};
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// Far more tokens than come before the client goes away.
const ENDLESS: u32 = 100_000;
/// Tokens of a prompt that is not read before the client goes away.
const LONG: usize = 100_000;
/// How long a prompt is being read before that.
const READING: Duration = Duration::from_millis(50);

/// One row, two requests: the first one's client goes away, and the second one, which waits, gets its first token. What
/// that takes beyond the same request on an idle daemon is how long the row was not free.
pub(super) fn measure(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let daemon = setup(bench, subject).set("engine.slots", 1).start();
    let client = runtime.block_on(connect(&daemon));
    let mut idle = Samples::default();
    let mut after: [Samples; 2] = Default::default();
    for round in 0..=bench.effort.cancels {
        let times = wait(runtime, async {
            let idle = first_token(begin(&client, greedy(&[PROMPT[0]], 1)), Instant::now()).await?;
            let generating = while_it_generates(&client).await?;
            Ok([idle, generating, while_its_prompt_is_read(&client).await?])
        })?;
        // The first round warms up.
        if round > 0 {
            idle.push(times[0]);
            after[0].push(times[1]);
            after[1].push(times[2]);
        }
    }
    let mut table = Table::new(format!("a client goes away, engine.slots 1, {} threads", bench.threads)).note(
        "From there until the next request, which was waiting, has its first token; beyond what that request takes on an \
         idle daemon: until the row is free.",
    );
    for (when, after) in ["a token is made", "its prompt is read"].into_iter().zip(&after) {
        table.push(
            Line::new()
                .of("while", when)
                .figure("next first token", Unit::Milliseconds, after)
                .figure("on an idle daemon", Unit::Milliseconds, &idle)
                .figure("until the row is free", Unit::Milliseconds, &after.pair(&idle, |after, idle| after - idle)),
        );
    }
    Ok(table)
}

async fn while_it_generates(client: &Client) -> Result<f64, Status> {
    let mut running = begin(client, greedy(&PROMPT, ENDLESS)).await?;
    running.until(3).await?;
    let waiting = begin(client, greedy(&[PROMPT[0]], 1)).await?;
    running.until(5).await?;
    let gone = Instant::now();
    drop(running);
    first_token(async { Ok(waiting) }, gone).await
}

async fn while_its_prompt_is_read(client: &Client) -> Result<f64, Status> {
    let prompt: Vec<u32> = (0..LONG).map(|i| PROMPT[i % PROMPT.len()]).collect();
    let reading = begin(client, greedy(&prompt, 1)).await?;
    let waiting = begin(client, greedy(&[PROMPT[0]], 1)).await?;
    tokio::time::sleep(READING).await;
    let gone = Instant::now();
    drop(reading);
    first_token(async { Ok(waiting) }, gone).await
}

/// Milliseconds from a moment until the first token has come; then waits for the end of the stream.
async fn first_token(stream: impl Future<Output = Result<Stream, Status>>, from: Instant) -> Result<f64, Status> {
    let mut stream: client::Stream = stream.await?;
    stream.until(1).await?;
    let time = milliseconds(from.elapsed());
    stream.rest().await?;
    Ok(time)
}
