//! How often a checkpoint answers as it should: exports it in each format, starts the daemon on it, and asks it conversations
//! whose last reply is known.
//!
//!     python3 deploy/demo-model/recipe/grammar.py --sets SETS --count 1000
//!     cargo build --release --workspace
//!     target/release/evaluate deploy/demo-model SETS/*.jsonl deploy/demo-model/recipe/handwritten.jsonl

#![allow(clippy::disallowed_methods, reason = "reads no settings")]

mod set;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{Chat, GenerateRequest, Sampling};
use recurve_tests::client::{self, Client};
use recurve_tests::daemon::Setup;
use recurve_tests::process::{agent_cli, run};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::set::{Set, Talk};

/// Most tokens of an answer: the longest right one has some sixty.
const MOST_TOKENS: u32 = 160;

/// Why nothing was counted; its text is for the user.
type Failure = Box<dyn std::error::Error>;

/// Counts the right answers of a checkpoint, through the daemon.
///
/// A set is a file with a conversation a line, as JSON: a list of [prompt, reply]. The turns before the last are given as they
/// are, and the reply to the last prompt has to be the last reply, every character. `null` there stands for any reply without a
/// device's action.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of a checkpoint, as `agent-cli export` takes it
    checkpoint: PathBuf,
    /// Files of conversations
    #[arg(required = true, value_name = "SET.jsonl")]
    sets: Vec<PathBuf>,
    /// How the weights are stored
    #[arg(long, value_delimiter = ',', default_values = ["f32", "int8", "int4"])]
    formats: Vec<String>,
    /// Round int4 by what matters for these texts, as `agent-cli export --calibrate`
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Print that many wrong answers of each set and format
    #[arg(long, value_name = "N", default_value_t = 0)]
    mistakes: usize,
    /// Fail where a set has a smaller share of right answers in any format: its name, and percent
    #[arg(long, value_name = "SET=PERCENT", value_parser = least)]
    least: Vec<(String, f64)>,
    /// Conversations at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    streams: u16,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn least(text: &str) -> Result<(String, f64), String> {
    let percent = |value: &str| value.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    text.split_once('=')
        .and_then(|(name, value)| Some((name.to_owned(), percent(value)?)))
        .ok_or_else(|| "must be the name of a set and percent, such as single=99.5".to_owned())
}

/// The right answers to a set, by format.
#[derive(Debug, Serialize)]
struct Counted {
    set: String,
    conversations: usize,
    right: BTreeMap<String, usize>,
}

impl Counted {
    fn percent(&self, format: &str) -> f64 {
        100.0 * self.right[format] as f64 / self.conversations as f64
    }
}

fn main() -> ExitCode {
    match evaluate(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("evaluate: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all shares are as large as they have to be.
fn evaluate(args: &Args) -> Result<bool, Failure> {
    let sets = args.sets.iter().map(|path| Set::read(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some((name, _)) = args.least.iter().find(|(name, _)| sets.iter().all(|set| set.name != *name)) {
        return Err(format!("--least {name}: no set has this name").into());
    }
    let mut counted: Vec<_> = sets
        .iter()
        .map(|set| Counted { set: set.name.clone(), conversations: set.talks.len(), right: BTreeMap::new() })
        .collect();
    let runtime = Runtime::new()?;
    let work = tempfile::tempdir()?;
    for format in &args.formats {
        let bundle = work.path().join(format);
        export(args, format, &bundle)?;
        let daemon = Setup::new(&bundle).set("engine.slots", args.streams).start();
        for (set, counted) in sets.iter().zip(&mut counted) {
            eprintln!("{format}: {}", set.name);
            let wrong = runtime.block_on(async {
                let client = client::connect(&daemon).await;
                ask_all(&client, set, usize::from(args.streams)).await
            })?;
            counted.right.insert(format.clone(), set.talks.len() - wrong.len());
            for (talk, answer) in wrong.iter().take(args.mistakes) {
                println!("--- {format}, {}\n{talk}instead: {answer}", set.name);
            }
        }
    }
    println!("{}", table(&counted, &args.formats));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&counted)? + "\n")?;
    }
    let mut enough = true;
    for (name, percent) in &args.least {
        for (counted, format) in counted.iter().flat_map(|set| args.formats.iter().map(move |format| (set, format))) {
            if counted.set == *name && counted.percent(format) < *percent {
                println!("too few: {name} as {format} has {:.1} %, and must have {percent} %", counted.percent(format));
                enough = false;
            }
        }
    }
    Ok(enough)
}

fn export(args: &Args, format: &str, out: &Path) -> Result<(), Failure> {
    let mut command = agent_cli(&["export"]);
    command.arg(&args.checkpoint).args(["--weights", format]).arg("--out").arg(out);
    if let (Some(file), "int4") = (&args.calibrate, format) {
        command.arg("--calibrate").arg(file);
    }
    let ended = run(&mut command);
    if ended.code != Some(0) {
        return Err(ended.stderr.into());
    }
    Ok(())
}

/// The conversations that were not answered right, with what was answered instead, in the order of the set.
async fn ask_all<'a>(client: &Client, set: &'a Set, streams: usize) -> Result<Vec<(&'a Talk, String)>, Failure> {
    let requests: Arc<Vec<GenerateRequest>> = Arc::new(set.talks.iter().map(request).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let mut askers = JoinSet::new();
    for _ in 0..streams {
        let (client, requests, next) = (client.clone(), Arc::clone(&requests), Arc::clone(&next));
        askers.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else { return Ok(answers) };
                answers.push((index, client::generate(&client, request.clone()).await?.text));
            }
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(asked) = askers.join_next().await {
        let asked: Result<Vec<_>, tonic::Status> = asked?;
        answers.extend(asked.map_err(|status| format!("the daemon answered {status}"))?);
    }
    let answered = set.talks.iter().zip(answers.into_values());
    Ok(answered.filter(|(talk, answer)| !talk.is_answered_by(answer)).collect())
}

fn request(talk: &Talk) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::Chat(Chat { messages: talk.messages() })),
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        max_tokens: Some(MOST_TOKENS),
        ..GenerateRequest::default()
    }
}

fn table(counted: &[Counted], formats: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["set", "conversations"].into_iter().chain(formats.iter().map(String::as_str)));
    for counted in counted {
        let shares = formats.iter().map(|format| format!("{:.1} %", counted.percent(format)));
        table.add_row([counted.set.clone(), counted.conversations.to_string()].into_iter().chain(shares));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
