//! `agent-cli node drain` and `agent-cli node resume`.

use recurve_proto::v1::DrainResponse;
use serde::Serialize;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;

use super::{Asked, partly};
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::interrupt::or_interrupted;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;

/// Progress that waits to be printed.
const WAITING: usize = 64;

/// Drains each device and tells how far it is, or has it take requests again.
pub(super) async fn run(asked: Asked, resume: bool) -> Result<(), Failure> {
    let done = or_interrupted(all(asked, resume)).await;
    if done == Err(Failure::Interrupted) && !resume {
        output::aside(
            "agent-cli: nobody waits any more, and what was drained stays so: `agent-cli node resume` has it take requests again",
        );
    }
    done
}

async fn all(asked: Asked, resume: bool) -> Result<(), Failure> {
    let (out, mut steps) = mpsc::channel(WAITING);
    let (format, many, count) = (asked.format, asked.many, asked.devices.len());
    let mut tasks = JoinSet::new();
    for (name, address) in asked.devices {
        let out = out.clone();
        tasks.spawn(async move {
            let done = one(&name, &address, resume, &out).await;
            done.map_err(|trouble| (name, trouble))
        });
    }
    drop(out);
    while let Some((name, step)) = steps.recv().await {
        match format {
            Format::Json => output::json(&Step::of(&name, &step))?,
            Format::Text => output::line(&text(many.then_some(&name), &step))?,
        }
    }
    let ended = tasks.join_all().await;
    partly(ended.into_iter().filter_map(Result::err).collect(), count, many)
}

/// Of one device: each step that differs from the one before.
async fn one(
    name: &str,
    address: &Address,
    resume: bool,
    out: &Sender<(String, DrainResponse)>,
) -> Result<(), Trouble> {
    let mut node = Node::at(address, PATIENCE).await?;
    let mut told = node.drain(resume).await?;
    let mut before: Option<DrainResponse> = None;
    // A long answer may take its time: a daemon that is gone is noticed by its connection.
    while let Some(step) = told.next().await? {
        if before.as_ref() != Some(&step) {
            // Who prints is gone only with this task.
            let _ = out.send((name.to_owned(), step)).await;
        }
        before = Some(step);
    }
    match before {
        Some(DrainResponse { draining: true, waiting: 0, active: 0 }) => Ok(()),
        Some(DrainResponse { draining: false, .. }) if resume => Ok(()),
        Some(DrainResponse { draining: false, .. }) => {
            let words = "somebody had it take requests again".to_owned();
            Err(Failure::Failed(format!("{}: {words}", node.target())).into())
        }
        _ => {
            let words = "it did not say how it ended: see `agent-cli node describe`".to_owned();
            let failure = Failure::Incomplete(format!("{}: {words}", node.target()));
            Err(Trouble { failure, ..Trouble::lost(node.target(), words) })
        }
    }
}

fn text(name: Option<&String>, step: &DrainResponse) -> String {
    let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
    match step {
        DrainResponse { draining: false, .. } => format!("{name}it takes requests"),
        DrainResponse { waiting: 0, active: 0, .. } => {
            format!("{name}drained: nothing is left, and no request is taken until `agent-cli node resume`")
        }
        DrainResponse { waiting, active, .. } => {
            format!("{name}{} left: {active} computed, {waiting} waiting", u64::from(*waiting) + u64::from(*active))
        }
    }
}

/// A step, for programs.
#[derive(Debug, Serialize)]
struct Step<'a> {
    device: &'a str,
    draining: bool,
    waiting: u32,
    active: u32,
}

impl<'a> Step<'a> {
    fn of(device: &'a str, step: &DrainResponse) -> Self {
        Self { device, draining: step.draining, waiting: step.waiting, active: step.active }
    }
}
