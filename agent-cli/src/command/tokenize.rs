//! `agent-cli tokenize`: text to token ids.

use recurve_proto::v1::TokenizeRequest;
use recurve_proto::v1::tokenize_request::Input;
use serde::Serialize;

use crate::args::On;
use crate::client::Client;
use crate::exit::Failure;
use crate::input;
use crate::output::{self, Format};

/// Arguments of `agent-cli tokenize`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agent-cli tokenize Turn the lamp on")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// Leave out the special tokens that the tokenizer adds by itself, such as <bos>
    #[arg(long)]
    no_special: bool,
    /// Read control tokens that the text writes out, such as <start_of_turn>, as control tokens instead of as text
    #[arg(long)]
    control_tokens: bool,
    /// How to print: ids with commas between, as --tokens takes them, or JSON with each token's piece
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The text; words are joined with a space. `-` reads standard input, less one line end at its end
    #[arg(value_name = "TEXT", required = true)]
    text: Vec<String>,
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Tokens {
    tokens: Vec<u32>,
    pieces: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let text = input::text(&args.text)?;
    let response = Client::connect(&args.on)
        .await?
        .tokenize(TokenizeRequest {
            input: Some(Input::Text(text)),
            no_special_tokens: args.no_special,
            read_control_tokens: args.control_tokens,
        })
        .await?;
    match args.format {
        Format::Text => output::line(&list(&response.tokens)),
        Format::Json => output::json(&Tokens { tokens: response.tokens, pieces: response.pieces }),
    }
}

/// `2,17,30`
fn list(tokens: &[u32]) -> String {
    let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
    ids.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[test]
    fn what_is_printed_is_what_tokens_takes() {
        let ids = vec![2, 17, 4_294_967_295];
        assert_eq!(list(&ids).parse(), Ok(args::Tokens(ids)));
    }
}
