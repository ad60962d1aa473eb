//! `agent-cli detokenize`: token ids to text.

use recurve_proto::v1::DetokenizeRequest;
use serde::Serialize;

use crate::args::{On, Tokens};
use crate::client::Client;
use crate::exit::Failure;
use crate::input;
use crate::output::{self, Format};

/// Arguments of `agent-cli detokenize`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agent-cli detokenize 2,17,30")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// Write special tokens, such as <bos>, as text instead of leaving them out
    #[arg(long)]
    keep_special: bool,
    /// How to print: the text, or {"text": …}
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Token ids with commas or spaces between; `-` reads them from standard input
    #[arg(value_name = "IDS", required = true)]
    ids: Vec<String>,
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Text {
    text: String,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Tokens(tokens) = input::text(&args.ids)?.parse().map_err(Failure::Usage)?;
    let text = Client::connect(&args.on)
        .await?
        .detokenize(DetokenizeRequest { tokens, keep_special_tokens: args.keep_special })
        .await?;
    match args.format {
        Format::Text => output::line(&text),
        Format::Json => output::json(&Text { text }),
    }
}
