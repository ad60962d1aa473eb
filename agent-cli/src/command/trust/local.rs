//! What `agent-cli trust` does with keys and metadata on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{Table, presets};
use recurve_author::trust::{self, Changed, Repository, Role, RoleState};
use recurve_bundle::{Bundle, BundleError, Digest, shell};
use serde::Serialize;

use crate::client::trust::failure;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::values::whole;

/// Where keys and metadata are.
#[derive(Debug, clap::Args)]
struct Place {
    /// The folder that holds the metadata, and the keys if they are nowhere else
    #[arg(long, value_name = "TRUST")]
    dir: PathBuf,
    /// A folder with private keys, *.pem; may be repeated; new keys go into the first. Default: TRUST/keys
    #[arg(long, value_name = "DIR")]
    keys: Vec<PathBuf>,
    /// How long the metadata of a role are valid from now, such as timestamp=7d; may be repeated. Where it is not given: what
    /// `init` was given, else root=1825d, targets=365d, snapshot=30d, timestamp=30d
    #[arg(long, value_name = "ROLE=TIME", value_parser = validity)]
    expires: Vec<(Role, Duration)>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Place {
    fn open(&self) -> Result<Repository, Failure> {
        let validity: BTreeMap<Role, Duration> = self.expires.iter().copied().collect();
        Repository::open(&self.dir, self.keys.clone(), &validity).map_err(failure)
    }
}

/// Arguments of `agent-cli trust init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    place: Place,
    /// How many signatures a role needs, such as root=2; as many keys are made. Default: 1
    #[arg(long, value_name = "ROLE=N", value_parser = threshold)]
    threshold: Vec<(Role, u64)>,
}

/// Arguments of `agent-cli trust sign`.
#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    #[command(flatten)]
    place: Place,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
}

/// Arguments of `agent-cli trust refresh`.
#[derive(Debug, clap::Args)]
pub(super) struct Refresh {
    #[command(flatten)]
    place: Place,
    /// Whose metadata; may be repeated. What depends on them is signed as well
    #[arg(long, value_name = "ROLE")]
    role: Vec<Role>,
    /// Bundles into which the new metadata are put
    #[arg(value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
}

/// Arguments of `agent-cli trust rotate`.
#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    place: Place,
    /// Whose key: root, targets, snapshot or timestamp
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// Which key, by the beginning of its id, where the role has several
    #[arg(long, value_name = "ID")]
    replace: Option<String>,
}

/// Arguments of `agent-cli trust add-key`.
#[derive(Debug, clap::Args)]
pub(super) struct AddKey {
    #[command(flatten)]
    place: Place,
    /// Whose key: root, targets, snapshot or timestamp
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// A file with the key, private or public, Ed25519 in PEM. Default: a new one is made
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How many signatures the role needs from now on. Default: as before
    #[arg(long, value_name = "N", value_parser = whole::<u64>(1..=16))]
    threshold: Option<u64>,
}

/// Arguments of `agent-cli trust revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    place: Place,
    /// The bundle's digest, or the beginning of it
    #[arg(value_name = "DIGEST")]
    bundle: String,
}

/// Arguments of `agent-cli trust show`.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    place: Place,
}

pub(super) fn init(args: Init) -> Result<(), Failure> {
    let how = trust::Init {
        thresholds: args.threshold.into_iter().collect(),
        validity: args.place.expires.iter().copied().collect(),
    };
    let (repository, changed) = Repository::init(&args.place.dir, args.place.keys.clone(), &how).map_err(failure)?;
    told(&repository, &args.place, &changed, "devices that get this root believe what these keys sign")
}

pub(super) fn sign(args: Sign) -> Result<(), Failure> {
    let bundle = opened(&args.bundle)?;
    let mut repository = args.place.open()?;
    repository.sign(&bundle).map_err(failure)?;
    trust::attach(&bundle, &repository.files()).map_err(failure)?;
    let headline = format!("{} is signed ({}), and carries its signatures", bundle.name(), bundle.digest());
    told(&repository, &args.place, &Changed::default(), &headline)
}

pub(super) fn refresh(args: Refresh) -> Result<(), Failure> {
    let bundles = args.bundles.iter().map(|dir| opened(dir)).collect::<Result<Vec<_>, _>>()?;
    let mut repository = args.place.open()?;
    let roles = if args.role.is_empty() { vec![Role::Snapshot] } else { args.role };
    repository.refresh(&roles).map_err(failure)?;
    for bundle in &bundles {
        trust::attach(bundle, &repository.files()).map_err(failure)?;
    }
    told(&repository, &args.place, &Changed::default(), "the metadata are signed again")
}

pub(super) fn rotate(args: Rotate) -> Result<(), Failure> {
    let mut repository = args.place.open()?;
    let changed = repository.rotate(args.role, args.replace.as_deref()).map_err(failure)?;
    told(&repository, &args.place, &changed, &format!("the role {} has a new key", args.role))
}

pub(super) fn add_key(args: AddKey) -> Result<(), Failure> {
    let mut repository = args.place.open()?;
    let changed = repository.add_key(args.role, args.key.as_deref(), args.threshold).map_err(failure)?;
    told(&repository, &args.place, &changed, &format!("the role {} has one more key", args.role))
}

pub(super) fn revoke(args: Revoke) -> Result<(), Failure> {
    let mut repository = args.place.open()?;
    let wanted = args.bundle.strip_prefix("sha256:").unwrap_or(&args.bundle);
    let signed = repository.bundles();
    let found: Vec<&(Digest, String)> = signed.iter().filter(|(digest, _)| digest.hex().starts_with(wanted)).collect();
    let [(digest, name)] = found.as_slice() else {
        return Err(Failure::Usage(format!(
            "{} signed bundles have a digest that begins with {:?}: one is needed; `agent-cli trust show` lists them",
            found.len(),
            args.bundle
        )));
    };
    let headline =
        format!("{name} is signed no longer ({digest}); devices hear of it with the next deployment or `trust update`");
    repository.revoke(&digest.clone()).map_err(failure)?;
    told(&repository, &args.place, &Changed::default(), &headline)
}

pub(super) fn show(args: Show) -> Result<(), Failure> {
    let repository = args.place.open()?;
    let headline = format!("{} is whole", args.place.dir.display());
    told(&repository, &args.place, &Changed::default(), &headline)
}

fn opened(dir: &Path) -> Result<Bundle, Failure> {
    Bundle::open(dir).map_err(|error| match error {
        BundleError::Missing { .. } | BundleError::Io { .. } => Failure::from(error),
        _ => Failure::Damaged(format!("{}: {error}", dir.display())),
    })
}

/// Prints what there is after a change.
fn told(repository: &Repository, place: &Place, changed: &Changed, headline: &str) -> Result<(), Failure> {
    let roles = repository.roles().map_err(failure)?;
    let bundles = repository.bundles();
    for role in &roles {
        if let Some(warning) = warning(role, &place.dir) {
            output::aside(&warning);
        }
    }
    if place.format == Format::Json {
        return output::json(&Told {
            roles: roles
                .iter()
                .map(|role| ToldRole {
                    role: role.role.as_str(),
                    version: role.version,
                    expires: &role.expires,
                    expired: role.expired,
                    threshold: role.threshold,
                    keys: role.keys.iter().map(|key| key.id.as_str()).collect(),
                })
                .collect(),
            bundles: bundles
                .iter()
                .map(|(digest, name)| ToldBundle { bundle: digest.to_string(), model: name })
                .collect(),
            new_keys: &changed.keys,
            retired_keys: &changed.retired,
        });
    }
    let mut text = headline.to_owned();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["role", "version", "expires", "needs", "keys"]);
    for role in &roles {
        let keys =
            role.keys.iter().map(|key| if key.here { key.id.clone() } else { format!("{} (elsewhere)", key.id) });
        let expires = if role.expired { format!("{} (expired)", role.expires) } else { role.expires.clone() };
        let keys = keys.collect::<Vec<_>>().join(", ");
        table.add_row([role.role.as_str(), &role.version.to_string(), &expires, &role.threshold.to_string(), &keys]);
    }
    text.push_str(&format!("\n\n{}\n", table.trim_fmt()));
    for (digest, name) in &bundles {
        text.push_str(&format!("\nsigned: {name} ({digest})"));
    }
    for key in &changed.keys {
        text.push_str(&format!("\nnew key: {}", key.display()));
    }
    for key in &changed.retired {
        text.push_str(&format!(
            "\nno longer believed: key {key}; destroy its file when no device waits for this change"
        ));
    }
    output::line(&text)
}

/// What is to be said about the time at which metadata expire.
fn warning(role: &RoleState, dir: &Path) -> Option<String> {
    let when = match (role.expired, role.soon) {
        (true, _) => format!("expired on {}, and devices refuse everything signed under them", role.expires),
        (false, true) => format!("expire on {}", role.expires),
        (false, false) => return None,
    };
    let option = match role.role {
        Role::Root | Role::Targets => format!(" --role {}", role.role),
        Role::Snapshot | Role::Timestamp => String::new(),
    };
    let dir = shell::quote(dir);
    Some(format!("warning: the {} metadata {when}: `agent-cli trust refresh --dir {dir}{option}`", role.role))
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Told<'a> {
    roles: Vec<ToldRole<'a>>,
    bundles: Vec<ToldBundle<'a>>,
    new_keys: &'a [PathBuf],
    retired_keys: &'a [String],
}

#[derive(Debug, Serialize)]
struct ToldRole<'a> {
    role: &'static str,
    version: u64,
    expires: &'a str,
    expired: bool,
    threshold: u64,
    keys: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct ToldBundle<'a> {
    bundle: String,
    model: &'a str,
}

/// `ROLE=N`.
fn threshold(text: &str) -> Result<(Role, u64), String> {
    let (role, number) = text.split_once('=').ok_or("write ROLE=N, such as root=2")?;
    match number.parse() {
        Ok(number @ 1..=16) => Ok((role.parse()?, number)),
        _ => Err(format!("{number:?} is no threshold: allowed is 1 to 16")),
    }
}

/// `ROLE=TIME`.
fn validity(text: &str) -> Result<(Role, Duration), String> {
    let (role, time) = text.split_once('=').ok_or("write ROLE=TIME, such as timestamp=7d")?;
    let digits = time.find(|c: char| !c.is_ascii_digit()).unwrap_or(time.len());
    let (number, unit) = time.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(format!("{time:?} is no time: write a whole number and a unit, such as 12h or 30d")),
    };
    /// A hundred years.
    const MOST: u64 = 100 * 365 * 86_400;
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    match time.filter(|time| (1..=MOST).contains(time)) {
        Some(time) => Ok((role.parse()?, Duration::from_secs(time))),
        None => Err("the time must be from 1s to 36500d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_in_a_command_is_quoted() {
        let state = |role| RoleState {
            role,
            version: 1,
            expires: "2026-01-01T00:00:00Z".to_owned(),
            expired: false,
            soon: true,
            threshold: 1,
            keys: Vec::new(),
        };
        let said = warning(&state(Role::Root), Path::new("my keys")).unwrap();
        assert!(said.ends_with("`agent-cli trust refresh --dir 'my keys' --role root`"), "{said}");
        let said = warning(&state(Role::Snapshot), Path::new("trust")).unwrap();
        assert!(said.ends_with("`agent-cli trust refresh --dir trust`"), "{said}");
    }

    #[test]
    fn roles_have_thresholds_and_times() {
        assert_eq!(threshold("root=2"), Ok((Role::Root, 2)));
        assert_eq!(validity("timestamp=7d"), Ok((Role::Timestamp, Duration::from_secs(7 * 86_400))));
        for wrong in ["root", "root=0", "root=17", "mirror=1", "=1", "root=-1"] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["root", "root=7", "root=0d", "root=36501d", "mirror=1d", "root=1w", "root=d", "root=99999999999999999999d"]
        {
            assert!(validity(wrong).is_err(), "{wrong}");
        }
    }
}
