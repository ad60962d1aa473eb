//! `agent-cli telemetry`: the history of daemons is gathered, and told.

use std::path::PathBuf;
use std::time::Duration;

use crate::args::{self, On, duration};
use crate::client::collector::Collector;
use crate::exit::Failure;
use crate::fleet::select::Selector;
use crate::history::forward::{self, Told};
use crate::history::gather::{Gathered, gather};
use crate::history::read::{Kept, Which};
use crate::history::summary::Summary;
use crate::history::{self, Store};
use crate::output;
use crate::view::telemetry::{Overview, Shown};
use crate::view::{points, report, telemetry};

/// Events that are told below the table.
const EVENTS: usize = 10;

/// Arguments of `agent-cli telemetry`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Devices keep their history, by the minute and older ones by the hour. What is new there since the last time is
gathered into a file of SQLite's, each record once, so that a run that broke off, or a device that was away, is no loss:
the next run goes on where the last one was. Any tool that opens such files can ask it: see its views `points`,
`histograms` and `events`.

Percentiles of several devices are those of all their requests together, not averages of theirs. They are as exact as the
buckets of the histograms that the devices keep; json gives each with the bounds of its bucket.

Examples:
  agent-cli telemetry
  agent-cli telemetry --to all --since 7d
  agent-cli telemetry --to site=north --html north.html
  agent-cli telemetry --to all --otlp http://collector:4317
  agent-cli telemetry --offline --format csv > points.csv"
)]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// What is told: this much time until now, such as 30m, 24h or 7d. Of a device that was never asked before, or for less,
    /// this much is gathered; else all that is new
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    since: Duration,
    #[command(flatten)]
    kept: args::Telemetry,
    /// Ask nobody: tell what is there, of all devices where none is named
    #[arg(long)]
    offline: bool,
    /// How long a device or a collector may be silent
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    patience: Duration,
    /// How to print: json gives one object on a line for each device and one for all, csv every single value
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Send what was gathered to a collector, too, by OTLP over gRPC: what this endpoint has not had yet, whatever its age
    #[arg(long, value_name = "ENDPOINT")]
    otlp: Option<String>,
    /// The certificate in PEM of the authority that knows the collector. Default: those that this system trusts
    #[arg(long, value_name = "FILE", requires = "otlp")]
    otlp_ca: Option<PathBuf>,
    /// Write a report with plots to this file: one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// In which form it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Csv,
}

/// What is told: names, each with its histories.
struct Chosen {
    gathered: Gathered,
    histories: Vec<Kept>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let now = history::now();
    let since = now.saturating_sub(i64::try_from(args.since.as_nanos()).unwrap_or(i64::MAX));
    let (store, gathered) = asked(&args, since).await?;
    let chosen = chosen(&store, gathered)?;
    let overview = overview(&store, &chosen, since)?;
    let ids: Vec<i64> = histories(&chosen).iter().map(|kept| kept.id).collect();
    match args.format {
        // That the one does not answer is said once, as the command's failure.
        Format::Text if args.to.is_empty() && overview.devices.iter().all(Shown::is_nothing) && !args.offline => {}
        Format::Text => output::line(&telemetry::text(&overview))?,
        Format::Json => telemetry::json(&overview).iter().try_for_each(output::json)?,
        Format::Csv => points::write(&store, &ids, since, std::io::stdout().lock())?,
    }
    if let Some(path) = &args.html {
        let devices: Vec<_> = chosen
            .iter()
            .map(|chosen| (chosen.gathered.device.clone(), chosen.histories.iter().map(|kept| kept.id).collect()))
            .collect();
        let page = report::page(&store, &overview, &devices, (since, now))?;
        std::fs::write(path, page)
            .map_err(|error| Failure::Failed(format!("cannot write the report {}: {error}", path.display())))?;
        output::aside(&format!("the report is in {}", path.display()));
    }
    if let Some(endpoint) = &args.otlp {
        forwarded(&args, endpoint, &store, &chosen).await?;
    }
    ended(&args, chosen)
}

/// What is asked for is gathered, or was.
async fn asked(args: &Args, since: i64) -> Result<(Store, Vec<Gathered>), Failure> {
    let path = args.kept.path().ok_or_else(|| {
        Failure::Usage("there is no home directory to keep telemetry in: name a file with --store".to_owned())
    })?;
    if !args.offline {
        let devices = args.on.named(&args.to)?;
        return gather(Store::open(&path)?, devices, since, args.patience).await;
    }
    if !path.exists() {
        return Err(Failure::Usage(format!(
            "nothing was gathered yet: there is no {}; leave out --offline, or name another file with --store",
            path.display()
        )));
    }
    let store = Store::open(&path)?;
    let names = match args.on.names(&args.to)? {
        Some(names) => names,
        None => {
            let mut names: Vec<String> = store.histories()?.into_iter().map(|kept| kept.name).collect();
            names.dedup();
            names
        }
    };
    Ok((store, names.into_iter().map(Gathered::nothing).collect()))
}

/// The histories of each device: those under its name, since one whose disk was replaced begins another; each once.
fn chosen(store: &Store, gathered: Vec<Gathered>) -> Result<Vec<Chosen>, Failure> {
    let mut all = store.histories()?;
    let chosen = gathered.into_iter().map(|gathered| {
        let of = |kept: &Kept| kept.name == gathered.device || Some(&kept.store) == gathered.store.as_ref();
        let (histories, rest) = all.drain(..).partition(of);
        all = rest;
        Chosen { gathered, histories }
    });
    Ok(chosen.collect())
}

fn histories(chosen: &[Chosen]) -> Vec<&Kept> {
    chosen.iter().flat_map(|chosen| &chosen.histories).collect()
}

fn overview(store: &Store, chosen: &[Chosen], since: i64) -> Result<Overview, Failure> {
    let mut overview = Overview { bounds: store.latency_bounds()?, since, ..Overview::default() };
    for Chosen { gathered, histories } in chosen {
        let mut summary = Summary::default();
        for kept in histories {
            summary.add(&store.summary(kept.id, since)?);
        }
        // Histories of one device follow each other; its rate is that of all the time that was measured.
        summary.tokens_per_second = (summary.seconds > 0.0).then(|| summary.tokens_out / summary.seconds);
        overview.fleet.add(&summary);
        overview.devices.push(Shown {
            device: gathered.device.clone(),
            summary,
            new: gathered.new,
            error: gathered.trouble.as_ref().map(|trouble| trouble.words.clone()),
            reachable: gathered.trouble.as_ref().is_none_or(|trouble| !trouble.lost),
        });
    }
    let ids: Vec<i64> = histories(chosen).iter().map(|kept| kept.id).collect();
    overview.events = store.events(&ids, since, Which::Notable, EVENTS)?;
    Ok(overview)
}

/// What a collector has not had yet goes there, and what came of it is told.
async fn forwarded(args: &Args, endpoint: &str, store: &Store, chosen: &[Chosen]) -> Result<(), Failure> {
    let authority = args.otlp_ca.as_ref().map(|path| {
        std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
    });
    // One after the other: what two of them send at the same time, a collector would count twice.
    let _turn = turn(args).await?;
    let mut collector = Collector::connect(endpoint, authority.transpose()?.as_deref(), args.patience).await?;
    let mut told = Told::default();
    let mut result = Ok(());
    for kept in histories(chosen) {
        result = forward::send(store, kept, &mut collector, &mut told).await;
        if result.is_err() {
            break;
        }
    }
    output::aside(&told.words(endpoint));
    result
}

/// Waits until no other command sends on what this store holds.
async fn turn(args: &Args) -> Result<Option<std::fs::File>, Failure> {
    let Some(path) = args.kept.path().map(|path| path.with_extension("forwarding")) else { return Ok(None) };
    let name = path.display().to_string();
    let locked = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    match locked.await {
        Ok(Ok(file)) => Ok(Some(file)),
        Ok(Err(error)) => Err(Failure::Failed(format!("cannot lock {name}, so that nothing is sent twice: {error}"))),
        Err(_) => Err(Failure::Failed(format!("waiting for {name} broke off"))),
    }
}

fn ended(args: &Args, chosen: Vec<Chosen>) -> Result<(), Failure> {
    let all = chosen.len();
    let mut troubles: Vec<_> = chosen.into_iter().filter_map(|chosen| chosen.gathered.trouble).collect();
    match troubles.len() {
        0 => Ok(()),
        _ if args.to.is_empty() => Err(troubles.swap_remove(0).failure),
        some => Err(Failure::Partly(format!("the history of {some} of {all} devices was not gathered to its end"))),
    }
}

/// As [`duration`], or days: `7d`.
fn span(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').map(str::parse) {
        Some(Ok(days @ 1..=3650_u64)) => Ok(Duration::from_secs(days * 24 * 3600)),
        Some(_) => Err("write a number of days from 1d to 3650d".to_owned()),
        None => duration(text).map_err(|_| "write a number and a unit: 30s, 90m, 24h or 7d; at least 1ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_may_be_days() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(span("90m"), Ok(Duration::from_secs(5400)));
        for wrong in ["0d", "d", "1.5d", "4000d", "7", "-1d", "7w"] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }
}
