//! `agent-cli push`: a bundle goes to an OCI registry.

use std::path::PathBuf;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_bundle::Bundle;
use recurve_registry::{Pushed, ReadBack, Reference, Registry, Step, Version};
use serde::Serialize;

use crate::args::RegistryArgs;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli push`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only blobs that the registry lacks are sent, and the bundle keeps its digest. Its signatures go with it.

Blobs that the registry has already are read back and hashed, and sent again where they are damaged. Over a slow link
--read-back none compares their sizes only.

A push whose link breaks goes on where the registry says it is. One that ended goes on with the blobs that are not there.

Examples:
  agent-cli push bundles/2b-it oci://registry.local:5000/models/2b-it:1.0
  agent-cli push bundles/2b-it oci://registry.local:5000/models/2b-it:1.0 --read-back none
  skopeo login registry.local:5000    # writes the credentials that are used here"
)]
pub(crate) struct Args {
    #[command(flatten)]
    registry: RegistryArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Which blobs to read back from the registry and hash
    #[arg(long, value_enum, default_value_t = Check::Present)]
    read_back: Check,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Where to: oci://HOST[:PORT]/REPOSITORY[:TAG]
    #[arg(value_name = "REFERENCE")]
    to: Reference,
}

/// Which blobs are read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// None: the registry is trusted to have what it says; sizes are compared
    None,
    /// Those that the registry has already
    Present,
    /// All, also those that were sent
    All,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Version::Tag(tag) = &args.to.version else {
        return Err(Failure::Usage(format!("{} names a digest: a push needs a tag", args.to)));
    };
    let bundle = Bundle::open(&args.bundle)?;
    let repository = &args.to.repository;
    let registry = Registry::new(repository.clone(), args.registry.access(repository)?)?;
    let read_back = match args.read_back {
        Check::None => ReadBack::Nothing,
        Check::Present => ReadBack::Present,
        Check::All => ReadBack::All,
    };
    let bar = ProgressBar::no_length();
    let pushed = registry.push(&bundle, tag, read_back, {
        let bar = bar.clone();
        move |step| advance(&bar, step)
    });
    let pushed = pushed.await;
    bar.finish_and_clear();
    report(&args, &pushed?)
}

fn advance(bar: &ProgressBar, step: Step) {
    match step {
        Step::Check(bytes) => begin(bar, "reading back what is there", bytes),
        Step::Begin(bytes) => begin(bar, "pushing", bytes),
        Step::Checked(bytes) | Step::Sent(bytes) => bar.inc(bytes),
        Step::Again(bytes) => bar.set_position(bar.position().saturating_sub(bytes)),
    }
}

fn begin(bar: &ProgressBar, what: &str, bytes: u64) {
    let template = format!("{what} {{bar:30}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{eta}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_length(bytes);
    bar.set_position(0);
}

fn report(args: &Args, pushed: &Pushed) -> Result<(), Failure> {
    let Pushed { digest, bytes, sent, blobs, sent_blobs, replaced, checked, referrers } = pushed;
    match args.format {
        Format::Json => output::json(&Report {
            reference: args.to.to_string(),
            digest: digest.to_string(),
            bytes: *bytes,
            sent: *sent,
            blobs: *blobs,
            sent_blobs: *sent_blobs,
            replaced: *replaced,
            checked: *checked,
            signatures: *referrers,
        }),
        Format::Text => output::line(&format!(
            "{} is {digest}; {} of {} travelled, in {sent_blobs} of {blobs} blobs{}{}{}",
            args.to,
            HumanBytes(*sent),
            HumanBytes(*bytes),
            if *checked > 0 { format!("; {} were read back", HumanBytes(*checked)) } else { String::new() },
            if *replaced > 0 { format!("; {replaced} damaged blobs were replaced") } else { String::new() },
            if *referrers > 0 { "; its signatures are beside it" } else { "; it has no signatures" },
        )),
    }
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: String,
    /// Of all blobs.
    bytes: u64,
    /// Of those that the registry lacked or had damaged.
    sent: u64,
    blobs: usize,
    sent_blobs: usize,
    /// Blobs that were damaged in the registry, and are whole now.
    replaced: usize,
    /// Bytes that were read back and hashed.
    checked: u64,
    signatures: usize,
}
