//! `agent-cli devices`: the inventory.

mod discover;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::args::Fleet;
use crate::exit::Failure;
use crate::fleet::edit::{self, Label};
use crate::fleet::inventory::{Device, Inventory, check_name};
use crate::output::{self, Format};
use crate::target::{self, Target};
use crate::view::table;

/// Arguments of `agent-cli devices`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli devices add gw-1 gw-1.lan:50051 --label site=north --label role=canary
  agent-cli devices label gw-1 site=south role-
  agent-cli devices
  agent-cli devices remove gw-1
  agent-cli devices discover --add

The file may be written by hand too; comments and order stay:
  [tls]                       # for every device that has none of its own
  ca = \"fleet.pem\"            # relative to the file
  certificate = \"operator.pem\"
  key = \"operator-key.pem\"

  [[device]]
  name = \"gw-1\"
  address = \"gw-1.lan:50051\"
  labels = {site = \"north\", role = \"canary\"}")]
pub(crate) struct Args {
    #[command(flatten)]
    fleet: Fleet,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List them; the same as no action
    List,
    /// Add one
    Add {
        /// Letters, digits, `-`, `_` and `.`
        name: String,
        /// host:port or unix:/path
        address: String,
        /// A label, such as site=north; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Label>,
    },
    /// Remove one
    Remove {
        /// Its name
        name: String,
    },
    /// Set labels (KEY=VALUE) and remove them (KEY-)
    Label {
        /// The device's name
        name: String,
        /// Such as site=north or role-
        #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
        labels: Vec<Label>,
    },
    /// Find daemons that announce themselves on the local network
    Discover(discover::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let path = args.fleet.path()?;
    match args.action {
        None | Some(Action::List) => list(&args.fleet.inventory()?, args.format),
        Some(Action::Add { name, address, labels }) => {
            check_name(&name).map_err(|words| Failure::Usage(format!("the name {words}")))?;
            let target = target::parse(&address).map_err(|words| {
                Failure::Usage(format!("the address {address:?} {words}; allowed: host:port or unix:/path"))
            })?;
            if let Some(label) = labels.iter().find(|label| label.value.is_none()) {
                return Err(Failure::Usage(format!("--label {}-: a new device has no label to remove", label.key)));
            }
            let inventory = edit::change(&path, |old| {
                free(&Inventory::parse(&path, old)?, &name, &target)?;
                edit::add(old, &name, &address, &labels)
            })?;
            told(&inventory, &name, "is added", args.format)
        }
        Some(Action::Label { name, labels }) => {
            args.fleet.inventory()?.device(&name)?;
            let inventory = edit::change(&path, |old| edit::label(old, &name, &labels))?;
            told(&inventory, &name, "has new labels", args.format)
        }
        Some(Action::Discover(discovery)) => discover::run(&discovery, &path, args.format),
        Some(Action::Remove { name }) => {
            let inventory = args.fleet.inventory()?;
            let device = inventory.device(&name)?;
            edit::change(&path, |old| edit::remove(old, &name))?;
            match args.format {
                Format::Json => output::json(&Listed::from(device)),
                Format::Text => output::line(&format!("{name} is removed from {}", path.display())),
            }
        }
    }
}

/// No device has this name or this address yet.
fn free(inventory: &Inventory, name: &str, target: &Target) -> Result<(), Failure> {
    let file = inventory.path.display();
    for device in &inventory.devices {
        if device.name == name {
            return Err(Failure::Usage(format!(
                "{name} is in the inventory {file} already, at {}: take another name, or remove it first with \
                 `agent-cli devices remove {name}`; `agent-cli devices label {name} KEY=VALUE` changes its labels",
                device.target
            )));
        }
        if device.target == *target {
            return Err(Failure::Usage(format!(
                "{target} is in the inventory {file} already, as {0}: remove that one first with `agent-cli devices remove {0}`",
                device.name
            )));
        }
    }
    Ok(())
}

fn told(inventory: &Inventory, name: &str, what: &str, format: Format) -> Result<(), Failure> {
    let device = inventory.device(name)?;
    match format {
        Format::Json => output::json(&Listed::from(device)),
        Format::Text => output::line(&format!("{name} {what}: {}{}", device.target, labels(device, "; "))),
    }
}

fn list(inventory: &Inventory, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&inventory.devices.iter().map(Listed::from).collect::<Vec<_>>());
    }
    if inventory.devices.is_empty() {
        return output::line("no devices: add one with `agent-cli devices add NAME ADDRESS`");
    }
    let mut rows = table::with_head(&["device", "address", "tls", "labels"]);
    for device in &inventory.devices {
        let tls = match &device.tls {
            Some(tls) if tls.own.is_some() => "mutual",
            Some(_) => "server only",
            None => "-",
        };
        rows.add_row([device.name.clone(), device.target.to_string(), tls.to_owned(), labels(device, "")]);
    }
    output::line(&rows.trim_fmt())
}

fn labels(device: &Device, before: &str) -> String {
    let labels: Vec<_> = device.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { String::new() } else { format!("{before}{}", labels.join(" ")) }
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    address: String,
    labels: &'a BTreeMap<String, String>,
    /// Whether TLS files are set for it.
    tls: bool,
}

impl<'a> From<&'a Device> for Listed<'a> {
    fn from(device: &'a Device) -> Self {
        Self {
            name: &device.name,
            address: device.target.to_string(),
            labels: &device.labels,
            tls: device.tls.is_some(),
        }
    }
}
