//! What `agent-cli trust` asks of a daemon.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use recurve_author::trust;
use recurve_proto::v1::{RoleState, TrustMode, TrustState};
use serde::Serialize;

use crate::args::On;
use crate::client::trust::{Truster, failure};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli trust install`.
#[derive(Debug, clap::Args)]
pub(super) struct Install {
    #[command(flatten)]
    on: On,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The folder of `agent-cli trust init`, whose latest root is taken, or a root metadata file
    #[arg(value_name = "TRUST")]
    from: PathBuf,
}

/// Arguments of `agent-cli trust update`.
#[derive(Debug, clap::Args)]
pub(super) struct Update {
    #[command(flatten)]
    on: On,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The folder of `agent-cli trust init`
    #[arg(value_name = "TRUST")]
    from: PathBuf,
}

/// Arguments of `agent-cli trust get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    #[command(flatten)]
    on: On,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Arguments of `agent-cli trust reset-clock`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A device keeps the latest time at which its metadata were good, and deploys nothing while its clock is behind that: metadata
that have expired would seem good. A clock that was ahead once has moved that time into the future. Look at the device's clock
first (`date`): what it says is taken for the latest time. Works over the device's Unix socket only, and is in its audit."
)]
pub(super) struct ResetClock {
    #[command(flatten)]
    on: On,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) async fn install(args: Install) -> Result<(), Failure> {
    let root = root(&args.from)?;
    let mut truster = Truster::connect(&args.on).await?;
    let state = truster.install(root).await?;
    told(&state, args.format, &format!("{} has its root of trust", truster.target()))
}

pub(super) async fn update(args: Update) -> Result<(), Failure> {
    let files = trust::published(&args.from).map_err(failure)?;
    let mut truster = Truster::connect(&args.on).await?;
    let state = truster.get().await?;
    let root = state.roles.iter().find(|role| role.role == "root").map_or(0, |role| role.version);
    let state = truster.update(&files, root).await?;
    told(&state, args.format, &format!("{} has the metadata of {}", truster.target(), args.from.display()))
}

pub(super) async fn get(args: Get) -> Result<(), Failure> {
    let mut truster = Truster::connect(&args.on).await?;
    let state = truster.get().await?;
    let headline = match (state.mode(), state.roles.is_empty()) {
        (TrustMode::Enforce, true) => "serves signed models only, and has no root of trust",
        (_, true) => "has no root of trust",
        (TrustMode::Enforce, false) => "serves signed models only",
        (TrustMode::Warn, false) => "serves models that are not signed, and warns",
        (_, false) => "serves models that are not signed",
    };
    told(&state, args.format, &format!("{} {headline}", truster.target()))
}

pub(super) async fn reset_clock(args: ResetClock) -> Result<(), Failure> {
    let mut truster = Truster::connect(&args.on).await?;
    let before = truster.get().await?.known_time;
    let state = truster.reset_clock().await?;
    let shown = |time: &Option<prost_types::Timestamp>| time.as_ref().map(ToString::to_string).unwrap_or_default();
    let headline = if before == state.known_time {
        "has nothing to reset: its clock is not behind the latest time that it knows".to_owned()
    } else {
        format!("takes {} for the latest time, instead of {}", shown(&state.known_time), shown(&before))
    };
    told(&state, args.format, &format!("{} {headline}", truster.target()))
}

/// A root's bytes: a file's, or those of the latest one in a folder.
fn root(from: &Path) -> Result<Vec<u8>, Failure> {
    if !from.is_dir() {
        let read = std::fs::read(from);
        let bytes = read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", from.display())))?;
        // A private key that is named by mistake stays here.
        if !is_root(&bytes) {
            return Err(Failure::Usage(format!(
                "{} is no root metadata file: name the folder that `agent-cli trust init` made, or a file N.root.json in its \
                 metadata",
                from.display()
            )));
        }
        return Ok(bytes);
    }
    let version = |name: &str| name.strip_suffix(".root.json").and_then(|version| version.parse::<u64>().ok());
    let files = trust::published(from).map_err(failure)?;
    let roots = files.into_iter().filter_map(|(name, bytes)| Some((version(&name)?, bytes)));
    let latest = roots.max_by_key(|(version, _)| *version);
    latest.map(|(_, bytes)| bytes).ok_or_else(|| Failure::Damaged(format!("{} holds no root", from.display())))
}

/// Whether these bytes call themselves root metadata. The device verifies them.
fn is_root(bytes: &[u8]) -> bool {
    let parsed = serde_json::from_slice::<serde_json::Value>(bytes);
    parsed.is_ok_and(|document| document["signed"]["_type"] == "root")
}

fn told(state: &TrustState, format: Format, headline: &str) -> Result<(), Failure> {
    let told = Told::from(state);
    if format == Format::Json {
        return output::json(&told);
    }
    let mut text = headline.to_owned();
    if !told.roles.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["role", "version", "expires"]);
        for role in &told.roles {
            table.add_row([role.role, &role.version.to_string(), &role.expires]);
        }
        text.push_str(&format!("\n\n{}\n", table.trim_fmt()));
    }
    for bundle in told.bundles {
        text.push_str(&format!("\nsigned: {bundle}"));
    }
    if told.clock_behind {
        let known = told.known_time.unwrap_or_default();
        text.push_str(&format!(
            "\nits clock is behind: {known} was reached before; until it is set, nothing is deployed. If it is right and was \
             ahead before, run `agent-cli trust reset-clock` on the device"
        ));
    }
    output::line(&text)
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Told<'a> {
    /// enforce, warn or off.
    mode: &'static str,
    /// Empty where there is no root.
    roles: Vec<ToldRole<'a>>,
    bundles: &'a [String],
    /// Null until the first update.
    known_time: Option<String>,
    clock_behind: bool,
}

#[derive(Debug, Serialize)]
struct ToldRole<'a> {
    role: &'a str,
    version: u64,
    expires: String,
}

impl<'a> From<&'a TrustState> for Told<'a> {
    fn from(state: &'a TrustState) -> Self {
        let role = |role: &'a RoleState| ToldRole {
            role: &role.role,
            version: role.version,
            expires: role.expires.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        Self {
            mode: match state.mode() {
                TrustMode::Enforce => "enforce",
                TrustMode::Warn => "warn",
                TrustMode::Off => "off",
                TrustMode::Unspecified => "unknown",
            },
            roles: state.roles.iter().map(role).collect(),
            bundles: &state.bundles,
            known_time: state.known_time.as_ref().map(ToString::to_string),
            clock_behind: state.clock_behind,
        }
    }
}
