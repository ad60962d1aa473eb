//! Clients that never rest: each opens a connection, asks, reads the answer to its end, and begins anew. Prints what became of
//! all requests as one JSON object: what `tests/systemd.sh` looks at while it starts the daemon again under them.

#![allow(clippy::disallowed_methods, reason = "reads no settings")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::generate_response::Event;
use recurve_proto::v1::inference_client::InferenceClient;
use recurve_proto::v1::{Chat, ChatMessage, FinishReason, GenerateRequest, Sampling};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Endpoint;
use tonic_types::StatusExt as _;

/// A daemon that lives tells something within this time.
const LIMIT: Duration = Duration::from_secs(60);
/// More than a daemon makes in any test; its own limit by default.
const MOST_TOKENS: u32 = 131_072;
/// Where a status says nothing of when to ask again.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks without end from many connections, and tells what became of it.
#[derive(Debug, Parser)]
struct Args {
    /// Where the daemon listens: HOST:PORT or unix:/PATH; with several, client after client takes the next
    #[arg(required = true)]
    on: Vec<String>,
    /// Clients at the same time
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Seconds until no new request is begun
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 24)]
    tokens: u32,
    /// Answers without an end: as many tokens as a request may ask for
    #[arg(long)]
    endless: bool,
}

/// What became of requests.
#[derive(Debug, Default)]
struct Outcomes {
    /// Whole answers,
    answered: u64,
    /// and those that ended with the finish reason SHUTDOWN.
    cut_short: u64,
    /// Connections that were refused.
    refused: u64,
    /// Streams or connections that broke without a status of the daemon's.
    broken: BTreeMap<String, u64>,
    /// Statuses after which a client may ask again, by code and reason,
    retried: BTreeMap<String, u64>,
    /// and those after which it may not.
    failed: BTreeMap<String, u64>,
    /// From the wish to the first token, over all that was tried meanwhile.
    longest_wait: Duration,
}

/// What one attempt came to.
enum Attempt {
    Answered { first: Instant, whole: bool },
    Refused,
    Broken(String),
    Status(Status),
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let clients: Vec<_> = (0..args.clients)
        .map(|client| {
            let address = args.on[client % args.on.len()].clone();
            tokio::spawn(one(address, (args.tokens, args.endless), until))
        })
        .collect();
    let mut all = Outcomes::default();
    for client in clients {
        match client.await {
            Ok(outcomes) => all.add(outcomes),
            Err(error) => *all.broken.entry(error.to_string()).or_default() += 1,
        }
    }
    println!("{}", all.json());
}

async fn one(address: String, tokens: (u32, bool), until: Instant) -> Outcomes {
    let mut outcomes = Outcomes::default();
    while Instant::now() < until {
        let wished = Instant::now();
        loop {
            match attempt(&address, tokens).await {
                Attempt::Answered { first, whole } => {
                    *if whole { &mut outcomes.answered } else { &mut outcomes.cut_short } += 1;
                    outcomes.longest_wait = outcomes.longest_wait.max(first.duration_since(wished));
                    break;
                }
                Attempt::Refused => outcomes.refused += 1,
                Attempt::Broken(how) => *outcomes.broken.entry(how).or_default() += 1,
                Attempt::Status(status) => {
                    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
                    let name = format!("{:?} {reason}", status.code());
                    match status.get_details_retry_info() {
                        Some(info) => {
                            *outcomes.retried.entry(name).or_default() += 1;
                            sleep(info.retry_delay.unwrap_or(PAUSE)).await;
                            continue;
                        }
                        None => *outcomes.failed.entry(name).or_default() += 1,
                    }
                }
            }
            sleep(PAUSE).await;
            if Instant::now() >= until {
                break;
            }
        }
    }
    outcomes
}

/// One request on a connection of its own.
async fn attempt(address: &str, (tokens, endless): (u32, bool)) -> Attempt {
    let uri = match address.strip_prefix("unix:") {
        Some(path) => format!("unix://{path}"),
        None => format!("http://{address}"),
    };
    let Ok(endpoint) = Endpoint::from_shared(uri) else { return Attempt::Broken(format!("{address} is no address")) };
    let channel = match timeout(LIMIT, endpoint.connect()).await {
        Err(_) => return Attempt::Broken("no connection in time".into()),
        Ok(Err(error)) => {
            return if is_refusal(&error) { Attempt::Refused } else { Attempt::Broken(chain(&error)) };
        }
        Ok(Ok(channel)) => channel,
    };
    let request = GenerateRequest {
        prompt: Some(Prompt::Chat(Chat {
            messages: vec![ChatMessage { role: "user".into(), content: "lock the garage door".into() }],
        })),
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        max_tokens: Some(if endless { MOST_TOKENS } else { tokens }),
        ignore_eos: endless,
        ..GenerateRequest::default()
    };
    let mut stream = match timeout(LIMIT, InferenceClient::new(channel).generate(request)).await {
        Err(_) => return Attempt::Broken("no answer in time".into()),
        Ok(Err(status)) => return of(status),
        Ok(Ok(stream)) => stream.into_inner(),
    };
    let mut first = None;
    loop {
        match timeout(LIMIT, stream.message()).await {
            Err(_) => return Attempt::Broken("the answer stopped".into()),
            Ok(Err(status)) => return of(status),
            Ok(Ok(None)) => return Attempt::Broken("the answer has no end".into()),
            Ok(Ok(Some(message))) => match message.event {
                Some(Event::Finish(finish)) => {
                    let whole = finish.reason() != FinishReason::Shutdown;
                    return Attempt::Answered { first: first.unwrap_or_else(Instant::now), whole };
                }
                Some(Event::Delta(_)) => {
                    first.get_or_insert_with(Instant::now);
                }
                _ => {}
            },
        }
    }
}

/// The daemon's own statuses say why; what the transport makes up does not.
fn of(status: Status) -> Attempt {
    match status.get_details_error_info() {
        Some(_) => Attempt::Status(status),
        None => Attempt::Broken(format!("{:?}: {}", status.code(), status.message())),
    }
}

fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
    };
    causes(error).any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(refused))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

impl Outcomes {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.cut_short += other.cut_short;
        self.refused += other.refused;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
        let maps =
            [(&mut self.broken, other.broken), (&mut self.retried, other.retried), (&mut self.failed, other.failed)];
        for (all, some) in maps {
            for (name, count) in some {
                *all.entry(name).or_default() += count;
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "answered": self.answered,
            "cut_short": self.cut_short,
            "refused": self.refused,
            "broken": self.broken,
            "retried": self.retried,
            "failed": self.failed,
            "longest_wait_ms": u64::try_from(self.longest_wait.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
