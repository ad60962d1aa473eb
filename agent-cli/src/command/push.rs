//! `agent-cli push`: a bundle goes to an OCI registry.

use std::path::PathBuf;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_bundle::Bundle;
use recurve_registry::{Pushed, Reference, Registry, Step, Version};
use serde::Serialize;

use crate::args::RegistryArgs;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli push`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only blobs that the registry lacks are sent, and the bundle keeps its digest. Its signatures go with it. A push
that broke off goes on with the first blob that is not there.

Examples:
  agent-cli push bundles/2b-it oci://registry.local:5000/models/2b-it:1.0
  skopeo login registry.local:5000    # writes the credentials that are used here"
)]
pub(crate) struct Args {
    #[command(flatten)]
    registry: RegistryArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Where to: oci://HOST[:PORT]/REPOSITORY[:TAG]
    #[arg(value_name = "REFERENCE")]
    to: Reference,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Version::Tag(tag) = &args.to.version else {
        return Err(Failure::Usage(format!("{} names a digest: a push needs a tag", args.to)));
    };
    let bundle = Bundle::open(&args.bundle)?;
    let repository = &args.to.repository;
    let registry = Registry::new(repository.clone(), args.registry.access(repository)?)?;
    let bar = ProgressBar::no_length();
    let pushed = registry.push(&bundle, tag, {
        let bar = bar.clone();
        move |step| advance(&bar, step)
    });
    let pushed = pushed.await;
    bar.finish_and_clear();
    report(&args, &pushed?)
}

fn advance(bar: &ProgressBar, step: Step) {
    match step {
        Step::Begin(bytes) => {
            if let Ok(style) =
                ProgressStyle::with_template("pushing {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            {
                bar.set_style(style);
            }
            bar.set_length(bytes);
        }
        Step::Sent(bytes) => bar.inc(bytes),
        Step::Again(bytes) => bar.set_position(bar.position().saturating_sub(bytes)),
    }
}

fn report(args: &Args, pushed: &Pushed) -> Result<(), Failure> {
    let Pushed { digest, bytes, sent, blobs, sent_blobs, referrers } = pushed;
    match args.format {
        Format::Json => output::json(&Report {
            reference: args.to.to_string(),
            digest: digest.to_string(),
            bytes: *bytes,
            sent: *sent,
            blobs: *blobs,
            sent_blobs: *sent_blobs,
            signatures: *referrers,
        }),
        Format::Text => output::line(&format!(
            "{} is {digest}; {} of {} travelled, in {sent_blobs} of {blobs} blobs{}",
            args.to,
            HumanBytes(*sent),
            HumanBytes(*bytes),
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
    /// Of those that the registry lacked.
    sent: u64,
    blobs: usize,
    sent_blobs: usize,
    signatures: usize,
}
