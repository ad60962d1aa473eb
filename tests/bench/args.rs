//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recurve_runtime::KernelChoice;

/// Measures bundles on this machine: kernels, the bare loop, and a daemon over gRPC.
///
/// A bundle of 2 billion parameters takes up to 15 minutes, the demo model's short form less than one. Speeds are true on a
/// machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "bench", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Bundles to measure, as `agent-cli export` writes them
    #[arg(value_name = "BUNDLE", required = true)]
    pub(crate) bundles: Vec<PathBuf>,
    /// Fewer samples of less work: a look at the demo model within a minute, not figures to compare
    #[arg(long)]
    pub(crate) short: bool,
    /// Only these groups; without it all, `walk` on small models only
    #[arg(long, value_enum, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<Group>,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Threads that compute; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// What this program runs itself for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Loads a graph, makes one step and prints what that took
    #[command(hide = true)]
    LoadOnce(LoadOnce),
}

/// What is loaded.
#[derive(Debug, Args)]
pub(crate) struct LoadOnce {
    /// The bundle
    pub(crate) bundle: PathBuf,
    /// Whose kernels
    #[arg(long, value_enum)]
    pub(crate) kernels: Kind,
    /// Rows of state
    #[arg(long)]
    pub(crate) rows: usize,
    /// Threads that compute
    #[arg(long)]
    pub(crate) threads: usize,
}

/// Whose kernels compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours
    Recurve,
    /// ONNX Runtime's own
    Onnxruntime,
}

/// A group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// How fast memory is read
    Bandwidth,
    /// Block products alone, for each instruction set
    Kernels,
    /// The bare loop over the bundle's graph: decode, positions, prefill
    Loop,
    /// Time and memory of loading
    Load,
    /// A daemon over gRPC: its share, streams, start, memory, cancellation, a busy machine
    Daemon,
    /// What a deployment sends and how fast, beside copying, hashing and syncing the same bytes
    Deploy,
    /// What measuring costs a token, serving while a collector is away, a month of history, a fleet that is gathered and watched
    Telemetry,
    /// A long walk of one row, every step of it
    Walk,
}

impl Kind {
    /// As the runtime calls it.
    pub(crate) fn choice(self) -> KernelChoice {
        match self {
            Kind::Recurve => KernelChoice::Recurve,
            Kind::Onnxruntime => KernelChoice::OnnxRuntime,
        }
    }

    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Recurve => "recurve",
            Kind::Onnxruntime => "onnxruntime",
        }
    }
}

impl Group {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Bandwidth => "bandwidth",
            Group::Kernels => "kernels",
            Group::Loop => "loop",
            Group::Load => "load",
            Group::Daemon => "daemon",
            Group::Deploy => "deploy",
            Group::Telemetry => "telemetry",
            Group::Walk => "walk",
        }
    }

    /// Whether it needs no bundle.
    pub(crate) fn is_of_the_machine(self) -> bool {
        matches!(self, Group::Bandwidth | Group::Kernels)
    }
}

impl Cli {
    /// The groups to measure, in their order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        let all = Group::value_variants().iter().copied();
        all.filter(|group| self.only.is_empty() || self.asks_for(*group))
    }

    /// Whether the group is named.
    pub(crate) fn asks_for(&self, group: Group) -> bool {
        self.only.contains(&group)
    }

    /// Threads that compute; at least one.
    pub(crate) fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
