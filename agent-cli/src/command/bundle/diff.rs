//! `agent-cli bundle diff`: what changed from one bundle to another, and what of it travels.

use std::path::PathBuf;

use indicatif::HumanBytes;
use recurve_bundle::{Bundle, Change, Diff, FileChange};
use serde::Serialize;

use super::{align_right, failure, plain_table};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli bundle diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle that devices have
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The bundle that they are to get
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// List the files that are the same, too
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let before = Bundle::open(&args.before).map_err(|error| failure(&args.before, error))?;
    let after = Bundle::open(&args.after).map_err(|error| failure(&args.after, error))?;
    let diff = Diff::of(&before, &after);
    match args.format {
        Format::Text => output::line(&text(&before, &after, &diff, args.all)),
        Format::Json => output::json(&Differing {
            before: before.digest().to_string(),
            after: after.digest().to_string(),
            bytes: diff.bytes,
            travels: diff.travels,
            files: listed(&diff, args.all).map(File::from).collect(),
        }),
    }
}

fn listed(diff: &Diff, all: bool) -> impl Iterator<Item = &FileChange> {
    diff.files.iter().filter(move |file| all || file.change != Change::Same)
}

/// The difference for people.
fn text(before: &Bundle, after: &Bundle, diff: &Diff, all: bool) -> String {
    let mut facts = plain_table();
    for (name, bundle) in [("before", before), ("after", after)] {
        facts.add_row([name, bundle.name(), &bundle.digest().to_string()]);
    }
    let mut parts = vec![facts.trim_fmt()];
    let mut table = plain_table();
    table.set_header(["change", "file", "bytes before", "bytes after", "travels"]);
    let mut rows = 0;
    for file in listed(diff, all) {
        let sizes = [file.before, file.after, file.travels].map(|bytes| bytes.to_string());
        let [before, after, travels] = &sizes;
        table.add_row([file.change.as_str(), &file.filepath, before, after, travels]);
        rows += 1;
    }
    if rows > 0 {
        align_right(&mut table, &[2, 3, 4]);
        parts.push(table.trim_fmt());
    }
    parts.push(summary(before, after, diff));
    parts.join("\n\n")
}

/// What the difference costs, in a sentence.
fn summary(before: &Bundle, after: &Bundle, diff: &Diff) -> String {
    if before.digest() == after.digest() {
        return "they are the same bundle: nothing travels".to_owned();
    }
    let same = diff.files.iter().filter(|file| file.change == Change::Same).count();
    let files = diff.files.iter().filter(|file| file.change != Change::Removed).count();
    let share = 100.0 * diff.travels as f64 / diff.bytes.max(1) as f64;
    format!(
        "{same} of {files} files are the same; {} of {} travel ({share:.1} %), the manifest and the configuration among them",
        HumanBytes(diff.travels),
        HumanBytes(diff.bytes)
    )
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Differing<'a> {
    before: String,
    after: String,
    /// Of all blobs of the second bundle.
    bytes: u64,
    /// Of those that the first lacks.
    travels: u64,
    files: Vec<File<'a>>,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    file: &'a str,
    change: &'static str,
    before: u64,
    after: u64,
    travels: u64,
}

impl<'a> From<&'a FileChange> for File<'a> {
    fn from(file: &'a FileChange) -> Self {
        let FileChange { filepath, change, before, after, travels } = file;
        Self { file: filepath, change: change.as_str(), before: *before, after: *after, travels: *travels }
    }
}
