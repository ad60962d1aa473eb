//! `agent-cli deploy`: a bundle travels to a daemon, is tested there, and is served.

use std::path::PathBuf;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_bundle::{Bundle, BundleError, Digest};
use recurve_proto::v1::activate_response::Event;
use recurve_proto::v1::{ModelPrepared, PlanResponse};
use serde::Serialize;

use crate::args::On;
use crate::client::models::{Blob, Operator};
use crate::client::trust::{Truster, signatures_of};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli deploy`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only blobs that the daemon lacks travel, and one that broke off goes on where it was. The model serves
when it passed its golden test there; until then, and when it fails, the one before serves.

Examples:
  agent-cli deploy bundles/2b-it
  agent-cli deploy bundles/2b-it --dry-run"
)]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// The folder of `agent-cli trust`, for signatures that are newer than those that the bundle carries
    #[arg(long, value_name = "TRUST")]
    trust: Option<PathBuf>,
    /// Only tell what would travel
    #[arg(long)]
    dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let bundle = Bundle::open(&args.bundle).map_err(damaged)?;
    let manifest = bundle.manifest_bytes().map_err(damaged)?;
    let signatures = signatures_of(&bundle, args.trust.as_deref())?;
    let mut operator = Operator::connect(&args.on).await?;
    let plan = operator.plan(manifest).await?;
    if args.dry_run {
        return planned(&bundle, &plan, &operator, args.format);
    }
    if plan.bytes > plan.free {
        return Err(Failure::Failed(format!(
            "{} has no room: {} are needed, and {} are free for models: remove one with `agent-cli models remove`",
            operator.target(),
            HumanBytes(plan.bytes),
            HumanBytes(plan.free)
        )));
    }
    let delivered = Truster::of(&operator).deliver(signatures.as_ref()).await?;
    if let Some((_, why)) = delivered.refusal(bundle.digest()) {
        return Err(Failure::Failed(format!("{} would refuse the model: {why}", operator.target())));
    }
    send(&mut operator, &bundle, &plan).await?;
    let mut prepared = None;
    let active = operator
        .activate(plan.bundle.clone(), |event| {
            if let Event::Prepared(event) = event {
                prepared = Some(event);
            }
            Ok(())
        })
        .await?;
    let done = Deployed {
        model: &active.name,
        bundle: &active.bundle,
        bytes: bundle.bytes(),
        sent: plan.bytes,
        golden_test: prepared.as_ref().map(|event| event.apart),
        golden_test_allowed: prepared.as_ref().map(|event| event.allowed),
        tokens_per_second: prepared.as_ref().map(|event| event.tokens_per_second),
        kernels: prepared.as_ref().map(|event| event.kernels.as_str()),
    };
    match args.format {
        Format::Json => output::json(&done),
        Format::Text => output::line(&format!(
            "{} is served at {} ({}); {} of {} travelled{}",
            done.model,
            operator.target(),
            done.bundle,
            HumanBytes(done.sent),
            HumanBytes(done.bytes),
            prepared.as_ref().map_or_else(String::new, test_result),
        )),
    }
}

/// What the golden test said, for people.
pub(super) fn test_result(prepared: &ModelPrepared) -> String {
    let ModelPrepared { apart, allowed, tokens_per_second, kernels } = prepared;
    format!(
        "\ngolden test passed: {apart:.1e} away, {allowed:.0e} allowed; {tokens_per_second:.1} tokens/s with {kernels}"
    )
}

async fn send(operator: &mut Operator, bundle: &Bundle, plan: &PlanResponse) -> Result<(), Failure> {
    let bar = ProgressBar::new(plan.bytes);
    if let Ok(style) = ProgressStyle::with_template("sending {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    for missing in &plan.missing {
        let digest: Digest = missing
            .digest
            .parse()
            .map_err(|error| Failure::Failed(format!("{} asks for a blob: {error}", operator.target())))?;
        let blob = Blob {
            bundle: plan.bundle.clone(),
            digest: missing.digest.clone(),
            size: missing.size,
            offset: missing.received,
            path: bundle.blob(&digest),
        };
        let bar = bar.clone();
        operator.upload(blob, move |bytes| bar.inc(bytes)).await?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn planned(bundle: &Bundle, plan: &PlanResponse, operator: &Operator, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&Planned {
            model: bundle.name(),
            bundle: &plan.bundle,
            bytes: bundle.bytes(),
            travels: plan.bytes,
            blobs: plan.missing.len(),
            free: plan.free,
        }),
        Format::Text => output::line(&format!(
            "{}: {} of {} would travel to {}, in {} blobs; {} are free there for models",
            bundle.name(),
            HumanBytes(plan.bytes),
            HumanBytes(bundle.bytes()),
            operator.target(),
            plan.missing.len(),
            HumanBytes(plan.free)
        )),
    }
}

fn damaged(error: BundleError) -> Failure {
    match error {
        BundleError::Missing { .. } | BundleError::Io { .. } => Failure::Failed(error.to_string()),
        _ => Failure::Damaged(error.to_string()),
    }
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Deployed<'a> {
    model: &'a str,
    bundle: &'a str,
    /// Of all blobs.
    bytes: u64,
    /// Of those that travelled.
    sent: u64,
    /// Null where the model was active already.
    golden_test: Option<f64>,
    golden_test_allowed: Option<f64>,
    tokens_per_second: Option<f64>,
    kernels: Option<&'a str>,
}

/// The JSON output of a dry run.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    model: &'a str,
    bundle: &'a str,
    bytes: u64,
    travels: u64,
    blobs: usize,
    free: u64,
}
