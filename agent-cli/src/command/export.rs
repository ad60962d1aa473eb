//! `agent-cli export`: a checkpoint becomes a bundle.

mod summary;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use recurve_author::{
    DEFAULT_BLOCK_SIZE, DEFAULT_MAX_CHUNK, DEFAULT_SAMPLE_TOKENS, ExportError, ExportOptions, ExportRequest, Observer,
    PackError, Phase, Samples, Source, WeightFormat, export,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;
use crate::output::{self, Format};
use crate::values::whole;

/// Arguments of `agent-cli export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli export recurrentgemma-2b-it --out bundles/2b-it
  agent-cli export recurrentgemma-2b-it --out bundles/2b-it --calibrate chats.jsonl --compare others.jsonl
  agent-cli export --random-weights config.json --out bundles/try --weights int8")]
pub(crate) struct Args {
    /// The folder of a Hugging Face RecurrentGemma checkpoint: config.json, *.safetensors, tokenizer.json
    #[arg(value_name = "HF_DIR", required_unless_present = "random_weights", conflicts_with = "random_weights")]
    checkpoint: Option<PathBuf>,
    /// The bundle's directory to make; the directory around it must exist
    #[arg(long, value_name = "BUNDLE_DIR")]
    out: PathBuf,
    /// How matrices are stored
    #[arg(long, value_enum, default_value_t = Weights::Int4)]
    weights: Weights,
    /// Most values that share one scale in int8 and int4: 32 (most exact), 64 or 128 (smallest)
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BLOCK_SIZE, value_parser = block_size)]
    block_size: usize,
    /// The model's name: letters, digits, `.`, `_` and `-`. Default: the checkpoint folder's
    #[arg(long)]
    name: Option<String>,
    /// Replace the bundle at --out, once the new one is complete
    #[arg(long)]
    overwrite: bool,
    /// Leave tokenizer and chat template out: the bundle then reads and returns token ids only
    #[arg(long, conflicts_with = "random_weights")]
    no_tokenizer: bool,
    /// Instead of HF_DIR: random weights of this configuration's shape, to size a device before a download
    #[arg(long, value_name = "CONFIG.json")]
    random_weights: Option<PathBuf>,
    /// The seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX), requires = "random_weights")]
    seed: u64,
    /// Most tokens in one step of a prefill; it fixes the size of a session's state
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CHUNK, value_parser = whole::<usize>(1..=u64::from(u32::MAX)))]
    max_chunk: usize,
    /// Calibrate the rounding to int4 with this file: texts of the kind that the model is for. A file that ends in .jsonl
    /// has objects with "prompt" (as the chat template writes it) and "completion", or with "text", one a line; any other is a
    /// text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["random_weights", "no_tokenizer"])]
    calibrate: Option<PathBuf>,
    /// Say how the model reads this file after rounding and before: divergence, likeliest tokens, perplexity. Other texts than
    /// those of --calibrate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["random_weights", "no_tokenizer"])]
    compare: Option<PathBuf>,
    /// Most tokens that are read of the files of --calibrate and --compare
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SAMPLE_TOKENS, value_parser = whole::<usize>(1..=u64::from(u32::MAX)))]
    sample_tokens: usize,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    /// 32-bit floating point: exact, four bytes a weight
    F32,
    /// 8 bits and a scale for each block
    Int8,
    /// 4 bits and a scale for each block
    Int4,
}

fn block_size(text: &str) -> Result<usize, String> {
    match text {
        "32" => Ok(32),
        "64" => Ok(64),
        "128" => Ok(128),
        _ => Err("allowed are 32, 64 and 128".to_owned()),
    }
}

/// Runs the command. Ctrl-C and SIGTERM end it without leaving anything behind.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let request = request(&args)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let mut stop = Stop::listen()?;
    let mut work = tokio::task::spawn_blocking({
        let cancel = Arc::clone(&cancel);
        move || {
            let bar = Bar::new();
            let result = export(&request, &bar, &cancel);
            bar.0.finish_and_clear();
            result
        }
    });
    let result = tokio::select! {
        result = &mut work => result,
        () = stop.asked() => {
            cancel.store(true, Ordering::Relaxed);
            work.await
        }
    };
    let exported =
        result.map_err(|error| Failure::Failed(format!("the export broke off: {error}")))?.map_err(failure)?;
    match args.format {
        Format::Text => output::line(&summary::text(&exported, &args.out)),
        Format::Json => output::json(&summary::Report::new(&exported, &args.out)),
    }
}

fn request(args: &Args) -> Result<ExportRequest, Failure> {
    let source = match (&args.checkpoint, &args.random_weights) {
        (_, Some(config)) => Source::Random { config: config.clone(), seed: args.seed },
        (Some(dir), None) => Source::Checkpoint { dir: dir.clone(), tokenizer: !args.no_tokenizer },
        (None, None) => return Err(Failure::Usage("give HF_DIR or --random-weights CONFIG.json".to_owned())),
    };
    let weights = match args.weights {
        Weights::F32 => WeightFormat::F32,
        Weights::Int8 => WeightFormat::Int8,
        Weights::Int4 => WeightFormat::Int4,
    };
    Ok(ExportRequest {
        source,
        out: args.out.clone(),
        overwrite: args.overwrite,
        name: args.name.clone(),
        options: ExportOptions { weights, block_size: args.block_size, max_chunk: args.max_chunk },
        samples: Samples {
            calibrate: args.calibrate.clone(),
            compare: args.compare.clone(),
            tokens: args.sample_tokens,
        },
    })
}

/// The signals by which the person or the system asks this process to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From here on these signals no longer end the process by themselves.
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn failure(error: ExportError) -> Failure {
    let text = error.to_string();
    match error {
        ExportError::Cancelled => Failure::Interrupted,
        ExportError::Option { .. } => Failure::Usage(text),
        ExportError::Pack(PackError::Exists { .. } | PackError::NotABundle { .. } | PackError::Output { .. }) => {
            Failure::Usage(text)
        }
        ExportError::Pack(_)
        | ExportError::Unreadable { .. }
        | ExportError::Shard(recurve_author::ShardError::Write(_)) => Failure::Failed(text),
        _ => Failure::Damaged(text),
    }
}

/// The progress bar on standard error; where that is no terminal, nothing is drawn.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(ProgressBar::no_length())
    }

    fn begin(&self, total: u64, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.reset();
        self.0.set_length(total);
    }
}

impl Observer for Bar {
    fn phase(&self, phase: Phase) {
        match phase {
            Phase::Calibrate(values) => self.begin(values, "calibrating {bar:30} {percent}% {eta}"),
            Phase::Weights(bytes) => {
                self.begin(bytes, "writing weights {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
            }
            Phase::Golden(values) => self.begin(values, "computing the golden test {bar:30} {percent}% {eta}"),
            Phase::Compare(values) => self.begin(values, "comparing with the checkpoint {bar:30} {percent}% {eta}"),
            Phase::Finish => self.begin(0, "finishing"),
        }
    }

    fn advance(&self, amount: u64) {
        self.0.inc(amount);
    }
}
