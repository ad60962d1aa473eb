//! `agent-cli generate`: continues a prompt.

use recurve_proto::v1::{self, Chat, ChatMessage, Delta, Finish, GenerateRequest, TokenIds, generate_request::Prompt};
use serde::Serialize;

use crate::args::{Generation, On, Tokens};
use crate::client::Client;
use crate::exit::Failure;
use crate::input;
use crate::interrupt::or_interrupted;
use crate::output::{self, Format, Streamed};
use crate::report::{self, Timings, Usage};
use crate::values::whole;

const EXAMPLES: &str = "\
Examples:
  agent-cli generate Please set the bedroom fan to 40
  agent-cli generate --on gateway-7:50051 --max-tokens 200 --stats - < question.txt
  agent-cli generate --raw --temperature 0 --format json The kitchen is";

/// Arguments of `agent-cli generate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    generation: Generation,
    /// Send the prompt as it is, not as a chat message through the model's chat template
    #[arg(long)]
    raw: bool,
    /// Read control tokens that the prompt writes out, such as <start_of_turn>, as control tokens instead of as text
    #[arg(long, requires = "raw")]
    control_tokens: bool,
    /// Token ids as the prompt, such as 2,17,30
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "raw"])]
    tokens: Option<Tokens>,
    /// Tell the log-probabilities of each token and of the N most probable ones, 0 to 20; needs --format json
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=20))]
    top_logprobs: Option<u32>,
    /// How to print: text as it arrives, or one JSON object at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The prompt; words are joined with a space. `-` reads standard input, less one line end at its end
    #[arg(value_name = "PROMPT", required_unless_present = "tokens")]
    prompt: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.top_logprobs.is_some() && args.format == Format::Text {
        return Err(Failure::Usage("--top-logprobs are only in the JSON output: add --format json".to_owned()));
    }
    let request = request(&args)?;
    let mut client = Client::connect(&args.on).await?;
    let finish = match args.format {
        Format::Text => stream(&mut client, request, &args.generation).await?,
        Format::Json => collect(&mut client, request, &args.generation).await?,
    };
    if args.generation.stats {
        output::aside(&report::stats(&finish));
    }
    complete(&client, &finish)
}

fn request(args: &Args) -> Result<GenerateRequest, Failure> {
    let prompt = match &args.tokens {
        Some(Tokens(ids)) => Prompt::Tokens(TokenIds { ids: ids.clone() }),
        None => {
            let text = input::text(&args.prompt)?;
            if args.raw {
                Prompt::Text(text)
            } else {
                Prompt::Chat(Chat { messages: vec![ChatMessage { role: "user".to_owned(), content: text }] })
            }
        }
    };
    Ok(GenerateRequest {
        top_logprobs: args.top_logprobs,
        read_control_tokens: args.control_tokens,
        ..args.generation.request(prompt)
    })
}

/// Prints the text as it arrives. Ctrl-C ends the line, then the program.
async fn stream(client: &mut Client, request: GenerateRequest, generation: &Generation) -> Result<Finish, Failure> {
    let mut out = Streamed::stdout();
    let answer = client.generate(request, generation.timeout, |delta| out.push(&delta.text));
    let result = or_interrupted(answer).await;
    match result {
        Ok(_) => out.end()?,
        Err(Failure::OutputClosed) => {}
        Err(_) => out.broken_off()?,
    }
    result
}

/// Prints one JSON object when the answer is complete.
async fn collect(client: &mut Client, request: GenerateRequest, generation: &Generation) -> Result<Finish, Failure> {
    let with_logprobs = request.top_logprobs.is_some();
    let mut answer = Delta::default();
    let call = client.generate(request, generation.timeout, |delta| {
        answer.text.push_str(&delta.text);
        answer.tokens.extend(delta.tokens);
        answer.logprobs.extend(delta.logprobs);
        Ok(())
    });
    let finish = or_interrupted(call).await?;
    output::json(&Answer::new(&answer, &finish, with_logprobs))?;
    Ok(finish)
}

/// An answer that the daemon cut short by its own shutdown was printed, and is not what was asked for.
fn complete(client: &Client, finish: &Finish) -> Result<(), Failure> {
    if finish.reason() == v1::FinishReason::Shutdown {
        return Err(Failure::Incomplete(format!("{} is shutting down and ended the answer early", client.target())));
    }
    Ok(())
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    text: &'a str,
    tokens: &'a [u32],
    finish_reason: &'static str,
    /// The stop string that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a str>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    /// One entry for each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Logprobs>>,
    seed: u64,
    model: &'a str,
    bundle: &'a str,
    request_id: &'a str,
}

impl<'a> Answer<'a> {
    fn new(answer: &'a Delta, finish: &'a Finish, with_logprobs: bool) -> Self {
        Self {
            text: &answer.text,
            tokens: &answer.tokens,
            finish_reason: report::finish_reason(finish),
            stop: (finish.reason() == v1::FinishReason::Stop).then_some(&finish.stop),
            usage: finish.usage.map(Usage::from),
            timings: finish.timings.map(Timings::from),
            logprobs: with_logprobs.then(|| answer.logprobs.iter().map(Logprobs::from).collect()),
            seed: finish.seed,
            model: &finish.model,
            bundle: &finish.bundle,
            request_id: &finish.request_id,
        }
    }
}

/// A token that was chosen, and the most probable ones in its place.
#[derive(Debug, Serialize)]
struct Logprobs {
    #[serde(flatten)]
    chosen: Logprob,
    top: Vec<Logprob>,
}

/// Natural logarithm.
#[derive(Debug, Serialize)]
struct Logprob {
    token: u32,
    logprob: f32,
}

impl From<&v1::TokenLogprob> for Logprob {
    fn from(value: &v1::TokenLogprob) -> Self {
        Self { token: value.token, logprob: value.logprob }
    }
}

impl From<&v1::TokenLogprobs> for Logprobs {
    fn from(value: &v1::TokenLogprobs) -> Self {
        Self {
            chosen: Logprob::from(&value.chosen.unwrap_or_default()),
            top: value.top.iter().map(Logprob::from).collect(),
        }
    }
}
