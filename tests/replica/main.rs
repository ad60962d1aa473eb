//! Writes a replica of a published repository, whole or with fewer layers: its files and their sizes are those of the real one,
//! its weights are random.
//!
//!     cargo run --release -p recurve-tests --bin replica -- 2b-it .cache/gemma/tokenizer.json recurrentgemma-2b-it

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use recurve_tests::replica::{Published, Size, write};

/// Writes a replica of a published RecurrentGemma repository, with random weights.
#[derive(Debug, Parser)]
#[command(name = "replica", version)]
struct Args {
    /// Which repository
    #[arg(value_enum)]
    model: Model,
    /// Gemma's tokenizer.json, as tests/run.sh fetches it into .cache/gemma
    #[arg(value_name = "TOKENIZER.json")]
    tokenizer: PathBuf,
    /// The folder to write; the full 2B needs 5.4 GB, the full 9B 17 GB
    out: PathBuf,
    /// Fewer layers than published
    #[arg(long, value_name = "N", conflicts_with = "small")]
    layers: Option<usize>,
    /// Three narrow layers, as the tests use it
    #[arg(long)]
    small: bool,
    /// The seed of the weights: the same one writes the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A published repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Model {
    /// google/recurrentgemma-2b
    #[value(name = "2b")]
    Base2b,
    /// google/recurrentgemma-2b-it
    #[value(name = "2b-it")]
    Chat2b,
    /// google/recurrentgemma-9b-it
    #[value(name = "9b-it")]
    Chat9b,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.out.exists() {
        eprintln!("replica: {} exists; name a folder that does not", args.out.display());
        return ExitCode::FAILURE;
    }
    let published = match args.model {
        Model::Base2b => Published::Base2b,
        Model::Chat2b => Published::Chat2b,
        Model::Chat9b => Published::Chat9b,
    };
    let size = match (args.small, args.layers) {
        (true, _) => Size::Small,
        (false, Some(layers)) => Size::Layers(layers),
        (false, None) => Size::Full,
    };
    write(published, size, args.seed, &args.tokenizer, &args.out);
    ExitCode::SUCCESS
}
