//! Several streams at once.

use std::time::Instant;

use recurve_tests::client::{Client, connect};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Status;

use super::client::{Arrivals, generate};
use super::{PROMPT, setup, wait};
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// Streams at once.
const STREAMS: [usize; 4] = [1, 2, 4, 8];

/// Tokens a second of all streams together, round after round over the numbers of streams.
pub(super) fn measure(bench: &Bench, subject: &Subject, runtime: &Runtime) -> Result<Table, Failure> {
    let most = STREAMS.into_iter().max().unwrap_or(1);
    let daemon = setup(bench, subject).set("engine.slots", most).start();
    let mut clients = Vec::new();
    for _ in 0..most {
        clients.push(runtime.block_on(connect(&daemon)));
    }
    // More than one stream alone, so that there is a time in which all of them run.
    let tokens = 2 * bench.effort.tokens;
    let mut taken: [Samples; STREAMS.len()] = Default::default();
    for round in 0..=bench.effort.streams {
        for (streams, taken) in STREAMS.into_iter().zip(&mut taken) {
            let speed = together(wait(runtime, all(&clients[..streams], tokens))?);
            // The first round warms up.
            if round > 0 {
                taken.push(speed);
            }
        }
    }
    let mut table = Table::new(format!("streams of {tokens} tokens, engine.slots {most}, {} threads", bench.threads))
        .note("Tokens a second of all streams together, while all of them have their first token and none its last.");
    for (streams, speeds) in STREAMS.into_iter().zip(&taken) {
        let line = Line::new().of("streams", streams).figure("together", Unit::TokensPerSecond, speeds).figure(
            "each",
            Unit::TokensPerSecond,
            &speeds.map(|speed| speed / streams as f64),
        );
        table.push(match streams {
            1 => line,
            _ => line.figure("against 1 stream", Unit::Times, &speeds.pair(&taken[0], |many, one| many / one)),
        });
    }
    Ok(table)
}

/// A generation for each client, all at once.
async fn all(clients: &[Client], tokens: u32) -> Result<Vec<Arrivals>, Status> {
    let mut streams = JoinSet::new();
    for (i, client) in (0..).zip(clients) {
        let client = client.clone();
        // Different ones: equal rows would read the same embeddings.
        let prompt = PROMPT.map(|id| id + i);
        streams.spawn(async move { generate(&client, &prompt, tokens).await });
    }
    let mut arrivals = Vec::new();
    while let Some(done) = streams.join_next().await {
        arrivals.push(done.map_err(|error| Status::internal(error.to_string()))??);
    }
    Ok(arrivals)
}

/// Tokens a second between the last stream's first token and the first stream's last one.
fn together(streams: Vec<Arrivals>) -> f64 {
    let end =
        |pick: fn(&[Instant]) -> Option<&Instant>| streams.iter().filter_map(move |stream| pick(&stream.0).copied());
    let (Some(from), Some(to)) = (end(<[Instant]>::first).max(), end(<[Instant]>::last).min()) else {
        return f64::NAN;
    };
    // A token that arrives at the beginning was made before it.
    let counted =
        streams.iter().flat_map(|stream| &stream.0).filter(|&&arrival| arrival > from && arrival <= to).count();
    counted as f64 / (to - from).as_secs_f64()
}
