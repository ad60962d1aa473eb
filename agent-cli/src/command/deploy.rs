//! `agent-cli deploy`: a model travels to a daemon or a fleet, is tested there, and is served.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_proto::v1::activate_response::Event;
use recurve_proto::v1::{ModelPrepared, PlanResponse};
use recurve_registry::Reference;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::args::{On, RegistryArgs, duration, duration_or_none};
use crate::client::models::Operator;
use crate::client::trust::Truster;
use crate::exit::Failure;
use crate::fleet::device::Common;
use crate::fleet::event::Teller;
use crate::fleet::halt::{Halt, Why};
use crate::fleet::plan;
use crate::fleet::rate::Rate;
use crate::fleet::rollout::{self, Settings};
use crate::fleet::select::Selector;
use crate::fleet::source::Source;
use crate::fleet::transfer::Transfers;
use crate::fleet::wave::{Share, Waves};
use crate::interrupt::or_interrupted;
use crate::output::{self, Format};
use crate::values::whole;
use crate::view;

/// Arguments of `agent-cli deploy`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only blobs that a daemon lacks travel, and one that broke off goes on where it was. The model serves
when it passed its golden test there; until then, and when it fails, the one before serves.

With --to, devices of the inventory get it in waves. Behind each wave is a gate: every device of it must have served
the model well for the time of --soak. A device that could not take it for a reason of its own (out of reach, busy, no
room, too small, it does not believe the signature) is skipped, the next one takes its place, and it does not count as
failed. One that failed its golden test, refused the model, went back from it, was started again or was lost after it was
asked to switch, counts. Who proved the model is asked again before each further wave, and must serve it still.

Examples:
  agent-cli deploy bundles/2b-it
  agent-cli deploy bundles/2b-it --dry-run
  agent-cli deploy bundles/2b-it --to all
  agent-cli deploy bundles/2b-it --to role=canary --to site=north --waves 2,50%,100% --limit-rate 2MB/s"
)]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// The folder of `agent-cli trust`, for signatures that are newer than those that the bundle carries
    #[arg(long, value_name = "TRUST")]
    trust: Option<PathBuf>,
    /// Deploy to these devices of the inventory, in waves: all; names and globs (gw-1,press-*); or labels that must all
    /// hold (site=north,role!=test,line in (1,2)). May be repeated: who is named first goes first
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// How many devices have been tried after each wave: numbers, or shares of those selected
    #[arg(long, value_name = "LIST", default_value = "1,10%,100%", requires = "to", help_heading = ROLLOUT)]
    waves: Waves,
    /// Stop when more devices failed than this: a number, or a share of those selected
    #[arg(long, value_name = "N|P%", default_value = "0", requires = "to", help_heading = ROLLOUT)]
    max_failures: Share,
    /// How long each device is watched after its switch
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration_or_none, requires = "to", help_heading = ROLLOUT)]
    soak: Duration,
    /// What becomes of the devices that this run changed when it is stopped
    #[arg(long, value_enum, default_value_t = OnFailure::Stop, requires = "to", help_heading = ROLLOUT)]
    on_failure: OnFailure,
    /// Devices that are sent to, or switch, at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole::<u16>(1..=64), requires = "to", help_heading = ROLLOUT)]
    parallel: u16,
    /// How long a device may give no sign of life, and take no byte
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// How often a lost link is made again while nothing arrives
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole::<u32>(0..=u64::from(u32::MAX)), requires = "to", help_heading = ROLLOUT)]
    retries: u32,
    /// Go on with a rollout that was interrupted: a device that went back from this model by itself is not tried again
    #[arg(long, requires = "to", help_heading = ROLLOUT)]
    resume: bool,
    /// Send at most so much, to all devices together: 2MB/s, 500kB/s, 10Mbit/s
    #[arg(long, value_name = "RATE")]
    limit_rate: Option<Rate>,
    #[command(flatten, next_help_heading = REGISTRY)]
    registry: RegistryArgs,
    /// Let devices use your credentials for the registry, this once. Default: their own, of `registry.auth_file`
    #[arg(long, help_heading = REGISTRY)]
    lend_credentials: bool,
    /// Only tell what would travel
    #[arg(long)]
    dry_run: bool,
    /// How to print; with --to json gives one object on a line for each event
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The bundle's directory, or oci://REGISTRY/REPOSITORY:TAG
    #[arg(value_name = "BUNDLE")]
    bundle: OsString,
}

const ROLLOUT: &str = "Rollouts (with --to)";
const REGISTRY: &str = "Registries (with oci://)";

/// What becomes of devices that were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnFailure {
    /// They serve on what they serve
    Stop,
    /// They serve the model before again
    Rollback,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.limit_rate.is_some() && args.bundle.to_str().is_some_and(Reference::is_meant) {
        return Err(Failure::Usage(
            "--limit-rate bounds what is sent from here, and devices fetch from a registry themselves: leave it out, or pull the \
             bundle into a folder first"
                .to_owned(),
        ));
    }
    let (trust, registry) = (args.trust.as_deref(), &args.registry);
    let opened = or_interrupted(Source::open(&args.bundle, trust, registry, args.lend_credentials));
    let source = opened.await?;
    if args.to.is_empty() { or_interrupted(one(&args, source)).await } else { many(&args, source).await }
}

/// A fleet. The first Ctrl-C stops it in order, the second one at once.
async fn many(args: &Args, source: Source) -> Result<(), Failure> {
    let devices = args.on.devices(&args.to)?;
    let halt = Halt::new();
    let common = Arc::new(Common {
        source,
        transfers: Transfers::new(args.limit_rate, args.patience),
        parallel: Semaphore::new(args.parallel.into()),
        soak: args.soak,
        patience: args.patience,
        retries: args.retries,
        halt: halt.clone(),
        teller: Teller::new(view::open(args.format)),
    });
    let settings = Settings {
        waves: args.waves.clone(),
        max_failures: args.max_failures,
        roll_back: args.on_failure == OnFailure::Rollback,
        dry_run: args.dry_run,
        resume: args.resume,
        rate: args.limit_rate,
    };
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_ok() {
            output::aside("agent-cli: stopping: devices that switch are waited for; Ctrl-C again ends at once");
            halt.now(Why::Interrupted);
        }
        // Without a handler the next one ends the process as ever.
        match tokio::signal::ctrl_c().await {
            Ok(()) => Err(Failure::Interrupted),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = rollout::run(Arc::clone(&common), devices, settings) => result.and_then(|()| common.teller.written()),
        ended = interrupted => ended,
    }
}

/// A single daemon.
async fn one(args: &Args, source: Source) -> Result<(), Failure> {
    let mut operator = Operator::connect(&args.on).await?;
    let plan = operator.plan(source.manifest.clone(), source.info.clone()).await?;
    if args.dry_run {
        return planned(&source, &plan, &operator, args.format);
    }
    if let Some(reason) = plan::obstacle(&plan) {
        let hint = if reason.cause == "no_room" { ": remove a model with `agent-cli models remove`" } else { "" };
        return Err(Failure::Failed(format!("{}: {}{hint}", operator.target(), reason.words)));
    }
    let delivered = Truster::of(&operator).deliver(source.signatures.as_ref()).await?;
    if let Some((_, why)) = delivered.refusal(&source.bundle) {
        return Err(Failure::Failed(format!("{} would refuse the model: {why}", operator.target())));
    }
    send(args, &mut operator, &source, &plan).await?;
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
        bytes: source.bytes,
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
fn test_result(prepared: &ModelPrepared) -> String {
    let ModelPrepared { apart, allowed, tokens_per_second, kernels } = prepared;
    format!(
        "\ngolden test passed: {apart:.1e} away, {allowed:.0e} allowed; {tokens_per_second:.1} tokens/s with {kernels}"
    )
}

async fn send(args: &Args, operator: &mut Operator, source: &Source, plan: &PlanResponse) -> Result<(), Failure> {
    let bar = ProgressBar::new(plan.bytes);
    if let Ok(style) = ProgressStyle::with_template("sending {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    let transfers = Transfers::new(args.limit_rate, args.patience);
    transfers.deliver(operator, source, plan, &|bytes| bar.inc(bytes)).await?;
    bar.finish_and_clear();
    Ok(())
}

fn planned(source: &Source, plan: &PlanResponse, operator: &Operator, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&Planned {
            model: &source.name,
            bundle: &plan.bundle,
            bytes: source.bytes,
            travels: plan.bytes,
            blobs: plan.missing.len(),
            free: plan.free,
        }),
        Format::Text => output::line(&format!(
            "{}: {} of {} would travel to {}, in {} blobs; {} are free there for models",
            source.name,
            HumanBytes(plan.bytes),
            HumanBytes(source.bytes),
            operator.target(),
            plan.missing.len(),
            HumanBytes(plan.free)
        )),
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
