//! `agent-cli devices discover`: daemons that announce themselves on the local network.

use std::time::Duration;

use serde::Serialize;

use crate::args::duration;
use crate::exit::Failure;
use crate::fleet::discover::{self, Found, Place};
use crate::fleet::edit;
use crate::fleet::inventory::Inventory;
use crate::output::{self, Format};
use crate::view::table;

/// Why nothing may be heard, with what can be done.
const SILENCE: &str = "no daemon was found. Multicast DNS reaches the local network only: the daemons may be on another \
                       subnet, or a switch, an access point or a firewall (UDP port 5353) keeps multicast away; they may have \
                       discovery.announce = false, or listen on loopback or a Unix socket only. \
                       `agent-cli devices add NAME ADDRESS` adds one that was not found";

/// Arguments of `agent-cli devices discover`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to listen for answers
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    wait: Duration,
    /// Add those to the inventory whose name and address it does not have yet
    #[arg(long)]
    add: bool,
}

/// A daemon, as it is printed.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    /// Where it can be called; none where it has no address for that.
    address: Option<String>,
    host: &'a str,
    port: u16,
    addresses: Vec<String>,
    /// Whether it speaks TLS; none where it does not say.
    tls: Option<bool>,
    version: &'a str,
    /// Empty where it serves none.
    model: &'a str,
    id: &'a str,
    /// Its name in the inventory; none where it is not there.
    device: Option<String>,
    /// Whether this command added it.
    added: bool,
    /// Why it could not be added, or what it needs.
    note: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, path: &std::path::Path, format: Format) -> Result<(), Failure> {
    let mut inventory = if path.exists() { Inventory::read(path)? } else { Inventory::parse(path, "")? };
    let found = discover::listen(args.wait)?;
    let resolves = discover::resolving(&found);
    let mut places = discover::places(&found, &resolves, &inventory);
    if args.add && places.iter().any(|place| matches!(place, Place::New { .. })) {
        inventory = edit::change(path, |old| {
            // Another command may have changed the file while this one listened.
            places = discover::places(&found, &resolves, &Inventory::parse(path, old)?);
            let mut text = old.to_owned();
            for place in &places {
                if let Place::New { name, address } = place {
                    text = edit::add(&text, name, &address.to_string(), &[])?;
                }
            }
            Ok(text)
        })?;
    }
    let each = found.iter().zip(&resolves).zip(&places);
    let rows: Vec<Row<'_>> =
        each.map(|((found, resolves), place)| row(found, *resolves, place, args.add, &inventory)).collect();
    if format == Format::Json {
        return output::json(&rows);
    }
    if rows.is_empty() {
        return output::line(SILENCE);
    }
    print(&rows, args.add, path)
}

fn row<'a>(found: &'a Found, resolves: bool, place: &Place, add: bool, inventory: &Inventory) -> Row<'a> {
    let (device, added, note) = match place {
        Place::Known(name) => (Some(name.clone()), false, None),
        Place::New { name, .. } if add => {
            let lacks = found.tls == Some(true) && inventory.device(name).is_ok_and(|device| device.tls.is_none());
            let note = "it speaks TLS: name the certificates in the inventory, under [tls] or for this device";
            (Some(name.clone()), true, lacks.then(|| note.to_owned()))
        }
        Place::New { .. } => (None, false, None),
        Place::Left(why) => (None, false, Some(why.clone())),
    };
    Row {
        name: &found.instance,
        address: found.address(resolves).map(|target| target.to_string()),
        host: &found.host,
        port: found.port,
        addresses: found.addresses.iter().map(ToString::to_string).collect(),
        tls: found.tls,
        version: &found.version,
        model: &found.model,
        id: &found.id,
        device,
        added,
        note,
    }
}

fn print(rows: &[Row<'_>], add: bool, path: &std::path::Path) -> Result<(), Failure> {
    let mut lines = table::with_head(&["name", "address", "tls", "version", "model", "in the inventory"]);
    for row in rows {
        let tls = match row.tls {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let place = match (&row.device, row.added) {
            (Some(name), true) => format!("added as {name}"),
            (Some(name), false) => format!("as {name}"),
            (None, _) => "no".to_owned(),
        };
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let address = row.address.clone().unwrap_or_else(|| format!("{}:{}", row.host, row.port));
        lines.add_row([row.name.to_owned(), address, tls.to_owned(), or_none(row.version), or_none(row.model), place]);
    }
    let notes = rows.iter().filter_map(|row| Some(format!("\n {}: {}", row.name, row.note.as_ref()?)));
    output::line(&output::printable(&(lines.trim_fmt() + &notes.collect::<String>())))?;
    let added = rows.iter().filter(|row| row.added).count();
    let new = rows.iter().filter(|row| row.device.is_none() && row.note.is_none()).count();
    let devices = |count: usize| if count == 1 { "1 device".to_owned() } else { format!("{count} devices") };
    if add {
        output::aside(&format!("{} added to {}", devices(added), path.display()));
    } else if new > 0 {
        output::aside(&format!("{} could be added to {} with --add", devices(new), path.display()));
    }
    Ok(())
}
