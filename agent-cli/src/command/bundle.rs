//! `agent-cli bundle`: what is in a bundle, whether it is whole, and how it differs from another.

mod chat;
mod diff;

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_bundle::{Bundle, BundleError, Descriptor, ModelInfo, file, parameter_size};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli bundle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show a bundle's model, state and files, and the first tokens of a conversation; does not read the weights
    #[command(after_help = "Example:
  agent-cli bundle inspect bundles/2b-it")]
    Inspect(Given),
    /// Read all of a bundle and compare it with its digests
    #[command(after_help = "Example:
  agent-cli bundle verify bundles/2b-it")]
    Verify(Given),
    /// Show what changed from one bundle to another, and how much of it travels to a device
    #[command(after_help = "Example:
  agent-cli bundle diff bundles/2b-it bundles/2b-it-new")]
    Diff(diff::Args),
}

#[derive(Debug, clap::Args)]
struct Given {
    /// The bundle's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Inspect(given) => inspect(&given),
        Action::Verify(given) => verify(&given),
        Action::Diff(args) => diff::run(&args),
    }
}

fn inspect(given: &Given) -> Result<(), Failure> {
    let bundle = Bundle::open(&given.dir).map_err(|error| failure(&given.dir, error))?;
    let chat = chat::first_tokens(&bundle);
    match given.format {
        Format::Text => {
            let chat = match chat {
                Ok(None) => String::new(),
                Ok(Some(tokens)) => format!("\n\n{}", chat::in_words(&tokens)),
                Err(error) => format!("\n\nThe chat template cannot be used: {error}"),
            };
            output::line(&format!("{}{chat}", description(&bundle)))
        }
        Format::Json => output::json(&Inspected {
            digest: bundle.digest().to_string(),
            bytes: bundle.bytes(),
            state_bytes: bundle.info().state_bytes(),
            model: bundle.info(),
            layers: &bundle.manifest().layers,
            chat_error: chat.as_ref().err().cloned(),
            chat: chat.ok().flatten(),
        }),
    }
}

fn verify(given: &Given) -> Result<(), Failure> {
    let damaged = |error| failure(&given.dir, error);
    let bundle = Bundle::open(&given.dir).map_err(damaged)?;
    let bar = ProgressBar::new(bundle.bytes());
    if let Ok(style) = ProgressStyle::with_template("verifying {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    let result = bundle.verify(&mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let verified = result.map_err(damaged)?;
    match given.format {
        Format::Text => output::line(&format!(
            "OK: {} is whole: {} blobs, {} bytes ({})",
            bundle.name(),
            verified.blobs,
            verified.bytes,
            bundle.digest()
        )),
        Format::Json => output::json(&Whole {
            name: bundle.name(),
            digest: bundle.digest().to_string(),
            blobs: verified.blobs,
            bytes: verified.bytes,
        }),
    }
}

fn failure(dir: &Path, error: BundleError) -> Failure {
    let text = format!("{}: {error}", dir.display());
    match error {
        BundleError::Missing { .. } | BundleError::Io { .. } => Failure::from(error),
        _ => Failure::Damaged(text),
    }
}

/// The bundle for people.
fn description(bundle: &Bundle) -> String {
    let info = bundle.info();
    let mut facts = plain_table();
    let block = info.block_size.map_or_else(String::new, |size| format!(", in blocks of up to {size}"));
    let tokens = |ids: &[u32]| match ids {
        [] => "none".to_owned(),
        ids => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    };
    let has = |filepath| if bundle.file(filepath).is_some() { "yes" } else { "no" };
    for (name, value) in [
        ("name", info.name.clone()),
        ("digest", bundle.digest().to_string()),
        ("architecture", info.architecture.clone()),
        ("parameters", format!("{} ({})", parameter_size(info.parameters), info.parameters)),
        ("weights", format!("{}{block}", info.weights)),
        ("shape", shape(info)),
        ("prefill chunk", format!("{} tokens", info.max_chunk)),
        ("first token", tokens(info.bos_token.as_slice())),
        ("end tokens", tokens(&info.end_tokens)),
        ("tokenizer", has(file::TOKENIZER).to_owned()),
        ("chat template", has(file::CHAT_TEMPLATE).to_owned()),
        ("size", size(bundle.bytes())),
        ("session state", size(info.state_bytes())),
    ] {
        facts.add_row([name, &value]);
    }
    format!("{}\n\n{}\n\n{}", facts.trim_fmt(), states(info), files(bundle))
}

fn shape(info: &ModelInfo) -> String {
    format!(
        "{} layers of {}, {} tokens in the vocabulary, window {}",
        info.layers, info.hidden_size, info.vocab_size, info.window
    )
}

fn size(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", HumanBytes(bytes))
}

/// The carried tensors, one line for each kind and shape.
fn states(info: &ModelInfo) -> String {
    let mut table = plain_table();
    table.set_header(["state", "tensors", "shape", "bytes each"]);
    let mut seen = Vec::new();
    for state in &info.states {
        let same = (state.kind, &state.shape);
        if seen.contains(&same) {
            continue;
        }
        seen.push(same);
        let count = info.states.iter().filter(|other| (other.kind, &other.shape) == same).count();
        let row = [
            state.kind.as_str().to_owned(),
            count.to_string(),
            format!("{:?}", state.shape),
            state.bytes().to_string(),
        ];
        table.add_row(row);
    }
    align_right(&mut table, &[1, 3]);
    table.trim_fmt()
}

fn files(bundle: &Bundle) -> String {
    let mut table = plain_table();
    table.set_header(["file", "bytes", "digest"]);
    for layer in &bundle.manifest().layers {
        let digest = layer.digest.hex();
        table.add_row([layer.filepath().unwrap_or_default(), &layer.size.to_string(), &digest[..16]]);
    }
    align_right(&mut table, &[1]);
    table.trim_fmt()
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The JSON output of `bundle inspect`.
#[derive(Debug, Serialize)]
struct Inspected<'a> {
    digest: String,
    /// Of all blobs.
    bytes: u64,
    /// Bytes that one session carries.
    state_bytes: u64,
    /// The bundle's `recurve.json`.
    model: &'a ModelInfo,
    /// The manifest's layers.
    layers: &'a [Descriptor],
    /// The first tokens of a conversation.
    chat: Option<Vec<chat::Token>>,
    /// Why a conversation cannot be made into tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_error: Option<String>,
}

/// The JSON output of `bundle verify`.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    name: &'a str,
    digest: String,
    blobs: usize,
    bytes: u64,
}
