//! `agent-cli models pull`: the daemon fetches a model from an OCI registry.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_proto::v1::PullRequest;
use recurve_registry::{Reference, Registry, Version};
use serde::Serialize;

use crate::args::RegistryArgs;
use crate::client::models::{Operator, PULLED};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli models pull`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon asks the registry itself, as its own settings `registry.*` tell, and goes on when this command is ended. A tag
is looked up from here; a digest is not.

Example:
  agent-cli models pull oci://registry.local:5000/models/2b-it:1.0 --on unix:/run/recurve/recurved.sock"
)]
pub(crate) struct Args {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Let the daemon use your credentials for the registry, this once. Default: its own, of `registry.auth_file`
    #[arg(long)]
    lend_credentials: bool,
    /// Where from: oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]
    #[arg(value_name = "REFERENCE")]
    from: Reference,
}

/// Runs the command.
pub(crate) async fn run(operator: &mut Operator, args: &Args, format: Format) -> Result<(), Failure> {
    let Reference { repository, version } = &args.from;
    let bundle = match version {
        Version::Digest(digest) => *digest,
        Version::Tag(_) => {
            let registry = Registry::new(repository.clone(), args.registry.access(repository)?)?;
            registry.manifest(version).await?.0
        }
    };
    let lent = if args.lend_credentials { args.registry.credentials(repository)? } else { None };
    let (username, password) = lent.map(|own| (own.username, own.password)).unwrap_or_default();
    let request = PullRequest {
        registry: repository.registry().to_owned(),
        repository: repository.name().to_owned(),
        bundle: bundle.to_string(),
        username,
        password,
    };
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("pulling {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    let mut needed = 0;
    let pulled = operator.pull(request, PULLED, |received, bytes| {
        needed = bytes;
        bar.set_length(bytes);
        bar.set_position(received);
    });
    let pulled = pulled.await;
    bar.finish_and_clear();
    pulled?;
    match format {
        Format::Json => output::json(&Pulled { bundle: bundle.to_string(), bytes: needed }),
        Format::Text => {
            output::line(&format!("{bundle} is at {}: {}; nothing was switched", operator.target(), HumanBytes(needed)))
        }
    }
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Pulled {
    bundle: String,
    /// Of all blobs.
    bytes: u64,
}
