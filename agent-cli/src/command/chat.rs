//! `agent-cli chat`: a conversation in the terminal.

mod lines;
mod plain;

use recurve_proto::v1::{self, Chat, ChatMessage, Finish, generate_request::Prompt};

use self::lines::{Line, Lines};
use crate::args::{Generation, On};
use crate::client::Client;
use crate::exit::Failure;
use crate::interrupt::or_interrupted;
use crate::output::{self, Streamed};
use crate::report;
use crate::terminal::Endings;

/// What `/help` tells.
const HELP: &str = "\
/reset  forget the conversation
/exit   leave; so do Ctrl-D, and Ctrl-C twice
/help   this
//TEXT  send a text that begins with one /
Ctrl-C stops an answer; what came of it stays in the conversation.";

/// Arguments of `agent-cli chat`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agent-cli chat --on gateway-7:50051 --temperature 0.7")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    generation: Generation,
    /// A system message to begin with, for models whose chat template takes one
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

/// Runs the command. Without a terminal it answers each line of standard input, and ends at the first error; a line that is not
/// UTF-8 text is left out, which the exit code says at the end.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args.on).await?;
    let conversation = Conversation::new(args.system);
    let lines = Lines::open()?;
    if lines.interactive() {
        output::aside(&format!("Talking to {}. /help lists what can be done.", client.target()));
    }
    if !lines.holds_terminal() {
        return talk(&mut client, lines, conversation, &args.generation).await;
    }
    let mut endings = Endings::listen()?;
    tokio::select! {
        failure = endings.next() => Err(failure),
        result = talk(&mut client, lines, conversation, &args.generation) => result,
    }
}

/// Asks line after line.
async fn talk(
    client: &mut Client,
    mut lines: Lines,
    mut conversation: Conversation,
    generation: &Generation,
) -> Result<(), Failure> {
    let mut left_out = 0;
    loop {
        let line = match lines.next().await? {
            Line::Text(line) => line,
            Line::Wrong(words) => {
                output::aside(&words);
                left_out += usize::from(!lines.interactive());
                continue;
            }
            Line::End => return complete(left_out),
        };
        match Entry::parse(&line) {
            Entry::Nothing => {}
            Entry::Exit => return complete(left_out),
            Entry::Help => output::aside(HELP),
            Entry::Reset => {
                conversation.reset();
                output::aside("(forgotten)");
            }
            Entry::Unknown(command) => {
                output::aside(&format!("{command} is not known; /help lists what can be done"));
            }
            Entry::Say(text) => match conversation.turn(client, generation, text).await {
                Ok(finish) => after(&finish, generation),
                Err(Failure::Interrupted) => output::aside("(stopped)"),
                Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
                Err(failure) if lines.interactive() => {
                    failure.report();
                }
                Err(failure) => return Err(failure),
            },
        }
    }
}

/// A program that gives lines learns by the exit code that some were not answered.
fn complete(left_out: usize) -> Result<(), Failure> {
    match left_out {
        0 => Ok(()),
        1 => Err(Failure::Usage("1 line of standard input was left out: it is not UTF-8 text".to_owned())),
        n => Err(Failure::Usage(format!("{n} lines of standard input were left out: they are not UTF-8 text"))),
    }
}

/// What there is to say after an answer.
fn after(finish: &Finish, generation: &Generation) {
    if finish.reason() == v1::FinishReason::Shutdown {
        output::aside("(the daemon is shutting down and ended the answer early)");
    }
    if generation.stats {
        output::aside(&report::stats(finish));
    }
}

/// A line that a person entered.
#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Nothing,
    Say(&'a str),
    Reset,
    Help,
    Exit,
    Unknown(&'a str),
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Self {
        let text = line.trim();
        match text {
            "" => Self::Nothing,
            "/reset" => Self::Reset,
            "/help" => Self::Help,
            "/exit" => Self::Exit,
            _ if text.starts_with("//") => Self::Say(&text[1..]),
            _ if text.starts_with('/') => Self::Unknown(text.split_whitespace().next().unwrap_or(text)),
            _ => Self::Say(text),
        }
    }
}

/// What was said so far; all of it goes to the daemon with each turn.
#[derive(Debug)]
struct Conversation {
    messages: Vec<ChatMessage>,
    /// How many of them a reset keeps: the system message, if there is one.
    head: usize,
}

impl Conversation {
    fn new(system: Option<String>) -> Self {
        let messages: Vec<_> = system.map(|text| message("system", text)).into_iter().collect();
        let head = messages.len();
        Self { messages, head }
    }

    fn reset(&mut self) {
        self.messages.truncate(self.head);
    }

    /// Says `text` and prints the answer as it arrives. Ctrl-C stops it.
    async fn turn(&mut self, client: &mut Client, generation: &Generation, text: &str) -> Result<Finish, Failure> {
        let mut messages = self.messages.clone();
        messages.push(message("user", text.to_owned()));
        let request = generation.request(Prompt::Chat(Chat { messages }));
        let mut answer = String::new();
        let mut out = Streamed::stdout();
        let call = client.generate(request, generation.timeout, |delta| {
            answer.push_str(&delta.text);
            out.push(&delta.text)
        });
        let result = or_interrupted(call).await;
        self.keep(text, answer);
        match result {
            Ok(_) => out.end()?,
            Err(Failure::OutputClosed) => {}
            Err(_) => out.broken_off()?,
        }
        result
    }

    /// Keeps a turn as far as it came. Without an answer it is not kept: templates want the roles to alternate.
    fn keep(&mut self, text: &str, answer: String) {
        if !answer.is_empty() {
            self.messages.push(message("user", text.to_owned()));
            self.messages.push(message("assistant", answer));
        }
    }
}

fn message(role: &str, content: String) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_things_to_say() {
        for (line, expected) in [
            ("", Entry::Nothing),
            ("  \t", Entry::Nothing),
            ("hello there ", Entry::Say("hello there")),
            ("/reset", Entry::Reset),
            (" /help ", Entry::Help),
            ("/exit", Entry::Exit),
            ("/quit now", Entry::Unknown("/quit")),
            ("/", Entry::Unknown("/")),
            ("//etc is a folder", Entry::Say("/etc is a folder")),
            ("1/2", Entry::Say("1/2")),
        ] {
            assert_eq!(Entry::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_reset_keeps_the_system_message_alone() {
        let mut conversation = Conversation::new(Some("Be brief.".to_owned()));
        conversation.keep("hello", "hi".to_owned());
        assert_eq!(conversation.messages.len(), 3);
        conversation.reset();
        assert_eq!(conversation.messages, [message("system", "Be brief.".to_owned())]);
    }

    #[test]
    fn a_turn_without_an_answer_is_not_kept() {
        let mut conversation = Conversation::new(None);
        conversation.keep("hello", String::new());
        assert!(conversation.messages.is_empty());
    }
}
