//! `agent-cli rollback`: the model that was active before is served again.

use std::time::Duration;

use serde::Serialize;

use crate::args::{On, duration};
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::fleet::event::Reason;
use crate::fleet::plan::Served;
use crate::fleet::select::Selector;
use crate::fleet::undo;
use crate::output::{self, Format};
use crate::view::table;

/// Arguments of `agent-cli rollback`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The model before is verified and tested again before it is served. A device whose model before failed, or
that has none, says so. Asked twice, a device serves what it served at first: with --from only those go back that serve
that model still, so the command can be run again.

Examples:
  agent-cli rollback
  agent-cli rollback --to site=north --from assistant-2"
)]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// Only where this model is served: its name, or the beginning of its digest
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// How long a device may give no sign of life
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (patience, from) = (args.patience, args.from.clone());
    let devices = args.on.devices(&args.to)?;
    let back = move |address| {
        let from = from.clone();
        async move { undo::back(&address, patience, from.as_deref()).await }
    };
    let went = ask_all(devices, back).await;
    let failed = went.iter().filter(|(_, went)| went.is_err()).count();
    if args.to.is_empty() {
        return match went.into_iter().next() {
            Some((device, Ok(serves))) => told(&device, serves.as_ref(), args.format),
            Some((device, Err(reason))) => Err(one(&device, reason)),
            None => Ok(()),
        };
    }
    let mut rows = table::with_head(&["device", "serves now", "why not"]);
    for (device, went) in &went {
        let row = Row { device, serves: went.as_ref().ok().and_then(Option::as_ref), reason: went.as_ref().err() };
        match args.format {
            Format::Json => output::json(&row)?,
            Format::Text => {
                let words = row.reason.map(|reason| format!("{}: {}", reason.cause, reason.words));
                rows.add_row([device.clone(), row.serves.map_or("?".to_owned(), name), words.unwrap_or_default()]);
            }
        }
    }
    if args.format == Format::Text {
        output::line(&rows.trim_fmt())?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Partly(format!("{failed} of {} devices did not go back", went.len()))),
    }
}

/// As the same failure of a single daemon is told everywhere.
fn one(device: &str, reason: Reason) -> Failure {
    match reason.cause.as_str() {
        "unreachable" => Failure::Unreachable(format!("{device}: {}", reason.words)),
        _ => Failure::Failed(format!("{device} refused: {}", reason.words)),
    }
}

fn name(served: &Served) -> String {
    format!("{} ({})", served.model, table::digest(&served.bundle))
}

fn told(device: &str, serves: Option<&Served>, format: Format) -> Result<(), Failure> {
    match (format, serves) {
        (Format::Json, serves) => output::json(&serves),
        (Format::Text, Some(served)) => {
            output::line(&format!("{} is served at {device} ({})", served.model, served.bundle))
        }
        (Format::Text, None) => output::line(&format!("{device} serves nothing")),
    }
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    device: &'a str,
    serves: Option<&'a Served>,
    reason: Option<&'a Reason>,
}
