//! `agent-cli status`: what daemons serve, and what went wrong there.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::args::{On, duration};
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::fleet::gate::Snapshot;
use crate::fleet::look;
use crate::fleet::select::Selector;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;
use crate::terminal;
use crate::view::table;

/// How often it is looked with --watch.
const PAUSE: Duration = Duration::from_secs(2);
/// What a terminal takes as "begin again at the top".
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Arguments of `agent-cli status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli status
  agent-cli status --to all --watch
  agent-cli status --to site=north --format json")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// How long a device may take to answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    patience: Duration,
    /// How to print; json gives one object on a line for each device, and with --watch only for those that changed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let devices = args.on.devices(&args.to)?;
    let patience = args.patience;
    let ask = |devices: Vec<(String, Address)>| {
        ask_all(devices, move |address: Address| async move { look::glance(&address, patience).await })
    };
    let mut before: Vec<Row> = Vec::new();
    loop {
        let rows: Vec<Row> = ask(devices.clone()).await.into_iter().map(Row::from).collect();
        match args.format {
            Format::Json => {
                let changed = rows.iter().filter(|row| !before.iter().any(|old| old.same(row)));
                changed.into_iter().try_for_each(output::json)?;
            }
            // That it does not answer is said once, as the command's failure.
            Format::Text if alone(&args, &rows) => {}
            Format::Text if rows.len() != before.len() || rows.iter().zip(&before).any(|(row, old)| !row.same(old)) => {
                if args.watch && terminal::steers(&std::io::stdout()) {
                    output::raw(CLEAR)?;
                }
                output::line(&show(&rows))?;
            }
            Format::Text => {}
        }
        if !args.watch {
            return ended(&args, rows);
        }
        before = rows;
        sleep(PAUSE).await;
    }
}

/// One daemon was asked once, and does not answer.
fn alone(args: &Args, rows: &[Row]) -> bool {
    args.to.is_empty() && !args.watch && rows.iter().all(|row| row.error.is_some())
}

fn ended(args: &Args, rows: Vec<Row>) -> Result<(), Failure> {
    let all = rows.len();
    let silent: Vec<Row> = rows.into_iter().filter(|row| row.error.is_some()).collect();
    match silent.as_slice() {
        [] => Ok(()),
        [Row { device, reachable, error, .. }] if args.to.is_empty() => {
            let words = format!("{device}: {}", error.as_deref().unwrap_or_default());
            Err(if *reachable { Failure::Failed(words) } else { Failure::Unreachable(words) })
        }
        silent => Err(Failure::Partly(format!("{} of {all} devices did not answer", silent.len()))),
    }
}

fn show(rows: &[Row]) -> String {
    let mut shown = table::with_head(&["device", "serving", "model", "digest", "stage", "last failure"]);
    for row in rows {
        let serving = match (row.reachable, &row.error, row.serving) {
            (false, ..) => "out of reach",
            (true, Some(_), _) => "?",
            (true, None, true) => "yes",
            (true, None, false) => "no",
        };
        let stage = match (&row.stage, row.probation_ms) {
            (Some("probation"), Some(left)) => format!("probation, {:.0} s left", left / 1e3),
            (Some(stage), _) => (*stage).to_owned(),
            (None, _) => String::new(),
        };
        shown.add_row([
            row.device.clone(),
            serving.to_owned(),
            row.model.clone().unwrap_or_default(),
            row.bundle.as_deref().map(table::digest).unwrap_or_default(),
            stage,
            row.error.clone().or_else(|| row.last_failure.clone()).unwrap_or_default(),
        ]);
    }
    shown.trim_fmt()
}

/// A device, as it answers or does not.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    device: String,
    reachable: bool,
    serving: bool,
    model: Option<String>,
    bundle: Option<String>,
    /// `confirmed`, or `probation`; null where nothing is served.
    stage: Option<&'static str>,
    /// What is left of its probation; null where the device does not say it.
    probation_ms: Option<f64>,
    /// Why it went back from a model by itself, the last one that it keeps.
    last_failure: Option<String>,
    /// Why it did not answer.
    error: Option<String>,
}

impl Row {
    /// Nothing is different but the time that has passed.
    fn same(&self, other: &Self) -> bool {
        Self { probation_ms: None, ..self.clone() } == Self { probation_ms: None, ..other.clone() }
    }
}

impl From<(String, Result<Snapshot, Trouble>)> for Row {
    fn from((device, seen): (String, Result<Snapshot, Trouble>)) -> Self {
        let (now, reachable, error) = match seen {
            Ok(now) => (now, true, None),
            Err(trouble) => (Snapshot::default(), !trouble.lost, Some(trouble.words)),
        };
        Self {
            device,
            reachable,
            serving: now.serving.unwrap_or(now.bundle.is_some()),
            stage: now.bundle.as_ref().map(|_| if now.confirmed { "confirmed" } else { "probation" }),
            probation_ms: now.probation.map(|left| left.as_secs_f64() * 1e3),
            last_failure: now.failures.last().map(|(bundle, why)| format!("{}: {why}", table::digest(bundle))),
            model: now.model,
            bundle: now.bundle,
            error,
        }
    }
}
