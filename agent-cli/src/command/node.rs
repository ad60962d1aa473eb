//! `agent-cli node`: what a node is, its settings, its service, and who changed it.

mod audit;
mod configure;
mod describe;
mod drain;

use std::collections::BTreeMap;

use crate::args::On;
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::fleet::select::Selector;
use crate::interrupt::or_interrupted;
use crate::output::Format;
use crate::status::Trouble;
use crate::target::Address;
use crate::values::whole;

use super::logs::partly;

/// Arguments of `agent-cli node`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli node describe --on gw-1
  agent-cli node configure log.level=debug --to site=north
  agent-cli node drain --on gw-1 && agent-cli node resume --on gw-1
  agent-cli node audit --on gw-1 --format json")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR", global = true)]
    to: Vec<Selector>,
    /// How to print; json gives one object on a line for each device, line or step
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Tell hardware, versions, model, limits and settings
    #[command(after_help = "Examples:
  agent-cli node describe
  agent-cli node describe --to all --format json")]
    Describe,
    /// Change settings until the daemon is started again: all of them, or none
    #[command(after_help = "Examples:
  agent-cli node configure log.level=debug --on gw-1
`agent-cli node describe` shows which settings there are, docs/configuration.md what they mean.")]
    Configure {
        /// A setting and its new value, such as log.level=debug; may be repeated
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Take no new requests, and wait until those that run are answered
    #[command(after_help = "Examples:
  agent-cli node drain --on gw-1
Ctrl-C ends the waiting; the node stays drained until `agent-cli node resume`, or until it is started again.")]
    Drain,
    /// Take requests again
    #[command(after_help = "Examples:
  agent-cli node resume --on gw-1")]
    Resume,
    /// Tell who changed what, and whom the daemon refused
    #[command(after_help = "Examples:
  agent-cli node audit --on gw-1 --after 120")]
    Audit {
        /// Only lines after this one
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = whole::<u64>(0..=u64::MAX))]
        after: u64,
    },
}

/// `KEY=VALUE`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as log.level=debug".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let asked = Asked { devices: args.on.devices(&args.to)?, many: !args.to.is_empty(), format: args.format };
    match args.action {
        Action::Describe => or_interrupted(describe::run(asked)).await,
        Action::Configure { settings } => or_interrupted(configure::run(asked, unique(settings)?)).await,
        Action::Drain => drain::run(asked, false).await,
        Action::Resume => drain::run(asked, true).await,
        Action::Audit { after } => or_interrupted(audit::run(asked, after)).await,
    }
}

/// Settings by their keys, each once.
fn unique(settings: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut unique = BTreeMap::new();
    for (key, value) in settings {
        let words = format!("{key} is given twice: give it once");
        if unique.insert(key, value).is_some() {
            return Err(Failure::Usage(words));
        }
    }
    Ok(unique)
}

/// Who is asked, and how the answers are printed.
struct Asked {
    devices: Vec<(String, Address)>,
    /// They come from the inventory: each answer says whose it is.
    many: bool,
    format: Format,
}

impl Asked {
    /// Asks all at once, and shows the answers in the devices' order.
    async fn each<T: Send + 'static, F>(
        self,
        ask: impl Fn(Address) -> F,
        show: impl Fn(&str, T) -> Result<(), Failure>,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let count = self.devices.len();
        let mut failures = Vec::new();
        for (name, answer) in ask_all(self.devices, ask).await {
            match answer {
                Ok(answer) => show(&name, answer)?,
                Err(trouble) => failures.push((name, trouble)),
            }
        }
        partly(failures, count, self.many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_a_key_and_come_once() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(setting("log.level=debug"), Ok(pair("log.level", "debug")));
        assert_eq!(setting("filter=a=b"), Ok(pair("filter", "a=b")));
        assert!(setting("log.level").is_err() && setting("=x").is_err());
        assert!(unique(vec![pair("a", "1"), pair("b", "1")]).is_ok());
        let twice = unique(vec![pair("a", "1"), pair("a", "2")]).unwrap_err();
        assert_eq!(twice, Failure::Usage("a is given twice: give it once".to_owned()));
    }
}
