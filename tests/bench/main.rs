//! How fast Recurve is on this machine: every figure of `docs/performance.md`, from one command.
//!
//!     cargo build --release -p recurved -p recurve-tests
//!     target/release/bench BUNDLE [BUNDLE…] [--short] [--only NAME,…] [--json FILE] [--threads N]
//!
//! What is compared is interleaved: machines that are shared change their speed from one second to the next. Every figure
//! is the median of its samples with the middle half beside it, and a ratio is taken within each pair of samples before
//! the median is.

mod args;
mod bandwidth;
mod bare;
mod daemon;
mod deploy;
mod effort;
mod kernels;
mod load;
mod machine;
mod report;
mod samples;
mod steps;
mod subject;
mod telemetry;
mod walk;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command, Group};
use crate::bandwidth::Bandwidth;
use crate::effort::Effort;
use crate::report::{Report, Table};
use crate::subject::Subject;

/// Why a measurement did not happen; its text is for the user.
type Failure = Box<dyn std::error::Error>;

/// What every group of measurements works with.
struct Bench {
    effort: Effort,
    /// Threads that compute; at least one.
    threads: usize,
    bandwidth: Bandwidth,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Command::LoadOnce(once)) => load::once(once),
        None => run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let subjects = cli.bundles.iter().map(|dir| Subject::open(dir)).collect::<Result<Vec<_>, _>>()?;
    let threads = cli.threads();
    let effort = Effort::new(cli.short);
    let mut report = Report::new(machine::describe(threads, cli.short)?, cli.json.clone())?;
    let mut bench = Bench { bandwidth: Bandwidth::new(effort.buffer, threads)?, effort, threads };
    for group in cli.groups().filter(|group| group.is_of_the_machine()) {
        report.add(group, None, measure_machine(&mut bench, group)?)?;
    }
    for subject in &subjects {
        progress(&format!("{}: reading {:.2} GB of weights", subject.name(), subject.weight_bytes as f64 / 1e9));
        subject.read_ahead()?;
        for group in cli.groups().filter(|group| !group.is_of_the_machine()) {
            if group == Group::Walk && !cli.asks_for(group) && !subject.is_small() {
                progress(&format!("{}: walk is left out: it takes long; --only walk", subject.name()));
                continue;
            }
            report.add(group, Some(subject), measure_bundle(&mut bench, group, subject)?)?;
        }
    }
    Ok(())
}

fn measure_machine(bench: &mut Bench, group: Group) -> Result<Vec<Table>, Failure> {
    progress(group.name());
    match group {
        Group::Bandwidth => Ok(bandwidth::measure(bench)),
        _ => kernels::measure(bench),
    }
}

fn measure_bundle(bench: &mut Bench, group: Group, subject: &Subject) -> Result<Vec<Table>, Failure> {
    match group {
        Group::Load => load::measure(bench, subject),
        Group::Daemon => daemon::measure(bench, subject),
        Group::Deploy => deploy::measure(bench, subject),
        Group::Telemetry => telemetry::measure(bench, subject),
        Group::Walk => walk::measure(bench, subject),
        _ => steps::measure(bench, subject),
    }
}

/// Says what is being measured, beside the results.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
