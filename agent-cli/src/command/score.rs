//! `agent-cli score`: how probable a text is to the model, token by token.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use recurve_proto::v1::{
    self, DetokenizeRequest, ScoreRequest, ScoreResponse, TokenIds, TokenizeRequest, score_request, tokenize_request,
};
use serde::Serialize;

use crate::args::{On, Tokens};
use crate::client::Client;
use crate::exit::Failure;
use crate::input;
use crate::output::{self, Format};
use crate::report::{Timings, Usage};

/// Arguments of `agent-cli score`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agent-cli score The bedroom is 21.5 degrees warm")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// Token ids to score, such as 2,17,30, instead of text
    #[arg(long, value_name = "IDS", conflicts_with = "text")]
    tokens: Option<Tokens>,
    /// Read control tokens that the text writes out, such as <start_of_turn>, as control tokens instead of as text
    #[arg(long, conflicts_with = "tokens")]
    control_tokens: bool,
    /// Let interactive requests go first
    #[arg(long)]
    background: bool,
    /// How to print: a table, or JSON with N tokens and N - 1 values, of which the first belongs to the second token
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The text, sent as it is; words are joined with a space. `-` reads standard input, less one line end at its end
    #[arg(value_name = "TEXT", required_unless_present = "tokens")]
    text: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let input = match args.tokens {
        Some(Tokens(ids)) => score_request::Input::Tokens(TokenIds { ids }),
        None => score_request::Input::Text(input::text(&args.text)?),
    };
    let priority = if args.background { v1::Priority::Background } else { v1::Priority::Interactive };
    let mut client = Client::connect(&args.on).await?;
    let read_control_tokens = args.control_tokens;
    let request = ScoreRequest { input: Some(input.clone()), priority: priority.into(), read_control_tokens };
    let response = client.score(request).await?;
    check(&client, &response)?;
    match args.format {
        Format::Json => output::json(&Scores::from(&response)),
        Format::Text => {
            let pieces = pieces(&mut client, input, &response.tokens, read_control_tokens).await;
            output::line(&table(&pieces, &response))
        }
    }
}

/// N tokens have N - 1 values.
fn check(client: &Client, response: &ScoreResponse) -> Result<(), Failure> {
    let (tokens, values) = (response.tokens.len(), response.logprobs.len());
    if values == tokens.saturating_sub(1) {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} gave {values} values for {tokens} tokens, where there is one less than tokens",
        client.target()
    )))
}

/// What each token stands for: of text as the tokenizer cut it, of ids each by itself. Empty where a daemon without a
/// tokenizer cannot tell, since the values are there all the same.
async fn pieces(
    client: &mut Client,
    input: score_request::Input,
    tokens: &[u32],
    read_control_tokens: bool,
) -> Vec<String> {
    let pieces = match input {
        score_request::Input::Text(text) => {
            let input = Some(tokenize_request::Input::Text(text));
            let request = TokenizeRequest { input, no_special_tokens: false, read_control_tokens };
            client.tokenize(request).await.map(|response| response.pieces)
        }
        _ => one_by_one(client, tokens).await,
    };
    pieces.unwrap_or_default()
}

async fn one_by_one(client: &mut Client, tokens: &[u32]) -> Result<Vec<String>, Failure> {
    let mut known: BTreeMap<u32, String> = BTreeMap::new();
    let mut pieces = Vec::with_capacity(tokens.len());
    for &token in tokens {
        let piece = match known.get(&token) {
            Some(piece) => piece.clone(),
            None => {
                let request = DetokenizeRequest { tokens: vec![token], keep_special_tokens: true };
                client.detokenize(request).await?
            }
        };
        known.insert(token, piece.clone());
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Sum of the log-probabilities, and the perplexity where there is a value at all.
fn summary(logprobs: &[f32]) -> (f64, Option<f64>) {
    let total = logprobs.iter().fold(0.0, |sum, value| sum + f64::from(*value));
    let perplexity = (!logprobs.is_empty()).then(|| (-total / logprobs.len() as f64).exp());
    (total, perplexity)
}

fn table(pieces: &[String], response: &ScoreResponse) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["token", "piece", "logprob"]);
    for (index, token) in response.tokens.iter().enumerate() {
        let piece = pieces.get(index).map_or("", String::as_str);
        let logprob = match index.checked_sub(1).and_then(|at| response.logprobs.get(at)) {
            Some(value) => format!("{value:.4}"),
            None => String::new(),
        };
        table.add_row([token.to_string(), piece.escape_debug().to_string(), logprob]);
    }
    for column in [0, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let (total, perplexity) = summary(&response.logprobs);
    let perplexity = perplexity.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    format!("{}\ntotal {total:.4}, perplexity {perplexity}", table.trim_fmt())
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Scores<'a> {
    tokens: &'a [u32],
    /// One less than tokens: the first belongs to the second token.
    logprobs: &'a [f32],
    total_logprob: f64,
    /// Null where there is a single token.
    perplexity: Option<f64>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    model: &'a str,
    bundle: &'a str,
    request_id: &'a str,
}

impl<'a> From<&'a ScoreResponse> for Scores<'a> {
    fn from(response: &'a ScoreResponse) -> Self {
        let (total_logprob, perplexity) = summary(&response.logprobs);
        Self {
            tokens: &response.tokens,
            logprobs: &response.logprobs,
            total_logprob,
            perplexity,
            usage: response.usage.map(Usage::from),
            timings: response.timings.map(Timings::from),
            model: &response.model,
            bundle: &response.bundle,
            request_id: &response.request_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_guess_among_four_has_perplexity_four() {
        let (total, perplexity) = summary(&[0.25_f32.ln(); 3]);
        assert!((total - 3.0 * 0.25_f64.ln()).abs() < 1e-6);
        assert!((perplexity.unwrap() - 4.0).abs() < 1e-6);
        assert_eq!(summary(&[]), (0.0, None));
    }

    #[test]
    fn the_first_token_of_the_table_has_no_value() {
        let response = ScoreResponse { tokens: vec![2, 17], logprobs: vec![-1.5], ..Default::default() };
        let text = table(&["<bos>".to_owned(), "a\n".to_owned()], &response);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["2", "<bos>"]);
        assert_eq!(lines[2], ["17", "a\\n", "-1.5000"]);
        assert_eq!(lines[3], ["total", "-1.5000,", "perplexity", "4.482"]);
    }
}
