//! `agent-cli bench`: how fast a daemon answers, at chosen prompt lengths and numbers of streams.

mod figures;
mod load;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::figures::Figures;
use self::load::{Load, Prompts};
use crate::args::On;
use crate::client::Client;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::values::whole;

/// Arguments of `agent-cli bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agent-cli bench --prompt-tokens 16,512 --concurrency 1,4")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// Lengths of the prompts, in tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "16,128,512", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    prompt_tokens: Vec<u32>,
    /// Streams at once, each over a connection of its own
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4", value_parser = whole::<u32>(1..=1024))]
    concurrency: Vec<u32>,
    /// Requests for each pair of prompt length and concurrency; at least one for each stream is made
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    requests: u32,
    /// Tokens to generate for each request; the model's end-of-text token does not end them
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    max_tokens: u32,
    /// Prompts are random token ids from 3 to below this; the model's vocabulary must be as large
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole::<u32>(4..=u64::from(u32::MAX)))]
    vocabulary: u32,
    /// How to print: a table or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    model: String,
    bundle: String,
    max_tokens: u32,
    results: Vec<Figures>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut prompts = Prompts::new(args.vocabulary);
    let mut client = Client::connect(&args.on).await?;
    let progress = progress(&args);
    // The first request may have to bring the weights into memory: it is not counted.
    let shortest = args.prompt_tokens.iter().copied().min().unwrap_or(1);
    let warm_up = load::request(prompts.next(shortest), args.max_tokens);
    let finish = client.generate(warm_up, None, |_| Ok(())).await?;

    let mut results = Vec::new();
    for &prompt_tokens in &args.prompt_tokens {
        for &concurrency in &args.concurrency {
            let load = Load {
                prompt_tokens,
                concurrency,
                requests: args.requests.max(concurrency),
                max_tokens: args.max_tokens,
            };
            progress.set_message(format!("{prompt_tokens} prompt tokens, {concurrency} at once"));
            let measured = load.run(&args.on, &mut prompts, &progress).await?;
            results.push(Figures::new(&load, &measured));
        }
    }
    progress.finish_and_clear();
    let report = Report {
        target: client.target().to_string(),
        model: finish.model,
        bundle: finish.bundle,
        max_tokens: args.max_tokens,
        results,
    };
    match args.format {
        Format::Json => output::json(&report),
        Format::Text => {
            let Report { target, model, bundle, max_tokens, results } = &report;
            output::line(&format!("{model} {bundle} at {target}, {max_tokens} tokens an answer"))?;
            output::line(&figures::table(results))
        }
    }
}

/// A bar on standard error, where that is a terminal.
fn progress(args: &Args) -> ProgressBar {
    let requests: u64 = args.concurrency.iter().map(|streams| u64::from(args.requests.max(*streams))).sum();
    let bar = ProgressBar::new(requests * args.prompt_tokens.len() as u64);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
