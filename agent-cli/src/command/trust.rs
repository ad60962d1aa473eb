//! `agent-cli trust`: says which bundles devices may serve, and whom a device believes.

mod device;
mod local;

use crate::exit::Failure;

/// Arguments of `agent-cli trust`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli trust init --dir trust
  agent-cli trust sign --dir trust bundles/2b-it
  agent-cli trust install --on gateway-7:50051 trust
  agent-cli deploy bundles/2b-it --on gateway-7:50051")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make keys, and the metadata that devices follow from then on
    Init(local::Init),
    /// Say that devices may serve a bundle, and put the signatures into it
    Sign(local::Sign),
    /// Sign again what is about to expire: timestamp and snapshot, if no role is named
    Refresh(local::Refresh),
    /// Replace a key of a role with a new one
    Rotate(local::Rotate),
    /// Give a role one more key, or another threshold with it
    AddKey(local::AddKey),
    /// Take a bundle back: no device that hears of it deploys it again
    Revoke(local::Revoke),
    /// Show roles, keys and signed bundles
    Show(local::Show),
    /// Give a device its root of trust, once
    Install(device::Install),
    /// Give a device the newest metadata without deploying anything
    Update(device::Update),
    /// Show whom a device believes
    Get(device::Get),
    /// On the device itself, after its clock was ahead and is right now: have it take the present time for the latest one
    ResetClock(device::ResetClock),
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Init(args) => local::init(args),
        Action::Sign(args) => local::sign(args),
        Action::Refresh(args) => local::refresh(args),
        Action::Rotate(args) => local::rotate(args),
        Action::AddKey(args) => local::add_key(args),
        Action::Revoke(args) => local::revoke(args),
        Action::Show(args) => local::show(args),
        Action::Install(args) => device::install(args).await,
        Action::Update(args) => device::update(args).await,
        Action::Get(args) => device::get(args).await,
        Action::ResetClock(args) => device::reset_clock(args).await,
    }
}
