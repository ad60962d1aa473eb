//! The command line is read: what the derived parser cannot say of it.

use std::mem::take;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, Error, FromArgMatches as _};

use crate::args::Cli;

/// The command line, or the end of the process with a message.
pub(crate) fn command_line() -> Cli {
    understand(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn understand(words: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Result<Cli, Error> {
    let mut command = built(Cli::command());
    let matches = command.try_get_matches_from_mut(words)?;
    one_or_many(&mut command, &matches)?;
    Cli::from_arg_matches(&matches)
}

/// A command with its own subcommands made complete.
pub(crate) fn built(mut command: clap::Command) -> clap::Command {
    command.build();
    keep_usage(&mut command);
    command
}

/// A usage line does not change with what was given: else variables of the environment appear in it as if they had to be
/// given.
fn keep_usage(command: &mut clap::Command) {
    for subcommand in command.get_subcommands_mut() {
        keep_usage(subcommand);
        let usage = subcommand.render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
        *subcommand = take(subcommand).override_usage(usage);
    }
}

/// `--on` means one daemon and `--to` devices of the inventory. A `RECURVE_ON` gives way to `--to`, so this is no conflict
/// that the parser could be told of.
fn one_or_many(command: &mut clap::Command, matches: &ArgMatches) -> Result<(), Error> {
    let Some((name, own)) = matches.subcommand() else { return Ok(()) };
    let given =
        |id| matches!(own.try_contains_id(id), Ok(true)) && own.value_source(id) == Some(ValueSource::CommandLine);
    if !(given("target") && given("to")) {
        return Ok(());
    }
    let words = "--on names one daemon, and --to devices of the inventory: give one of them";
    let asked = command.find_subcommand_mut(name).map(take).unwrap_or_default();
    Err({ asked }.error(ErrorKind::ArgumentConflict, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        understand(words.iter().copied()).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn one_daemon_and_many_are_not_asked_for_at_once() {
        for words in [
            &["agent-cli", "deploy", "bundle", "--to", "gw-1", "--on", "gw-2"][..],
            &["agent-cli", "rollback", "--to", "gw-1", "--on", "gw-2"],
            &["agent-cli", "status", "--on", "gw-2", "--to", "gw-1"],
            &["agent-cli", "top", "--on", "gw-2", "--to", "gw-1"],
            &["agent-cli", "node", "drain", "--on", "gw-2", "--to", "gw-1"],
            &["agent-cli", "node", "--on", "gw-2", "drain", "--to", "gw-1"],
        ] {
            assert!(refused(words).contains("--on names one daemon, and --to devices"), "{words:?}");
        }
        for words in [&["agent-cli", "deploy", "bundle", "--to", "gw-1"][..], &["agent-cli", "status", "--on", "gw-1"]]
        {
            assert!(understand(words.iter().copied()).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn what_is_only_for_rollouts_needs_devices() {
        for option in [
            &["--waves", "100%"][..],
            &["--max-failures", "1"],
            &["--soak", "1s"],
            &["--on-failure", "rollback"],
            &["--parallel", "2"],
            &["--retries", "2"],
            &["--resume"],
        ] {
            let words = [&["agent-cli", "deploy", "bundle"], option].concat();
            assert!(refused(&words).contains("--to <SELECTOR>"), "{words:?}");
        }
    }

    #[test]
    fn a_usage_line_is_the_same_whatever_was_given() {
        for words in [&["agent-cli", "deploy"][..], &["agent-cli", "deploy", "--fleet", "x"]] {
            assert!(refused(words).contains("Usage: agent-cli deploy [OPTIONS] <BUNDLE>"), "{}", refused(words));
        }
        let added = refused(&["agent-cli", "devices", "add", "gw-1", "--fleet", "x"]);
        assert!(added.contains("Usage: agent-cli devices add [OPTIONS] <NAME> <ADDRESS>"), "{added}");
    }
}
