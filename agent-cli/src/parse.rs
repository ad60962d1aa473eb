//! The command line is read: what the derived parser cannot say of it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::mem::take;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, ColorChoice, CommandFactory as _, Error, FromArgMatches as _};

use crate::args::{Cli, dumb_terminal};
use crate::output;

/// The command line, or after a message the exit code.
pub(crate) fn command_line() -> Result<Cli, ExitCode> {
    understand(std::env::args_os()).map_err(|error| match error.print().and_then(|()| io::stdout().flush()) {
        Err(failure) if !error.use_stderr() => output::failed(&failure).report(),
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX)),
    })
}

fn understand(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Cli, Error> {
    // The parser's own choice counts a `CI` in the environment as a terminal that understands colours.
    let color = if dumb_terminal() { ColorChoice::Never } else { ColorChoice::Auto };
    let mut command = built(Cli::command().color(color));
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let matches = command.try_get_matches_from_mut(&words).map_err(|error| explained(&mut command, error, &words))?;
    one_or_many(&mut command, &matches)?;
    Cli::from_arg_matches(&matches)
}

/// The parser's error, in words that name what is wrong where its own do not.
fn explained(command: &mut clap::Command, error: Error, words: &[OsString]) -> Error {
    match (error.kind(), words.iter().find(|word| word.to_str().is_none())) {
        (kind @ ErrorKind::InvalidUtf8, Some(word)) => {
            command.error(kind, format!("the argument {word:?} is not UTF-8 text; only paths may be something else"))
        }
        (ErrorKind::UnknownArgument, None) => match one_hyphen(command, words) {
            Some((word, flag)) => command.error(error.kind(), format!("unknown flag '{word}'; did you mean --{flag}?")),
            None => error,
        },
        _ => error,
    }
}

/// A word that is a flag's name behind one hyphen, and the flag.
fn one_hyphen<'w>(command: &clap::Command, words: &'w [OsString]) -> Option<(&'w str, String)> {
    fn has(command: &clap::Command, flag: &str) -> bool {
        command.get_arguments().any(|arg| arg.get_long() == Some(flag))
            || command.get_subcommands().any(|below| has(below, flag))
    }
    words.iter().filter_map(|word| word.to_str()).find_map(|word| {
        let name = word.strip_prefix('-').filter(|name| name.len() > 1 && !name.starts_with('-'))?;
        let flag = name.split('=').next().unwrap_or(name);
        has(command, flag).then(|| (word, flag.to_owned()))
    })
}

/// A command with its own subcommands made complete.
pub(crate) fn built(command: clap::Command) -> clap::Command {
    let mut command = take_hyphens(command);
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

/// Values that are numbers or begin with one, by their names.
const NUMERIC: [&str; 10] = ["N", "X", "K", "P", "TIME", "RATE", "LIST", "N,…", "N|P%", "IDS"];

/// What follows a flag for a number is its value, also where it begins with a hyphen: so a negative number is told what is allowed
/// there, and is not taken for another flag.
fn take_hyphens(command: clap::Command) -> clap::Command {
    let numeric = |arg: &Arg| {
        let names = arg.get_value_names().unwrap_or_default();
        arg.get_long().is_some() && names.iter().any(|name| NUMERIC.contains(&name.as_str()))
    };
    command
        .mut_args(|arg| if numeric(&arg) { arg.allow_hyphen_values(true) } else { arg })
        .mut_subcommands(take_hyphens)
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
    fn every_flag_for_a_number_names_itself_the_value_and_what_is_allowed() {
        fn each(command: &clap::Command, path: &[&str], found: &mut usize) {
            for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
                each(below, &[path, &[below.get_name()]].concat(), found);
            }
            for arg in command.get_arguments() {
                let names = arg.get_value_names().unwrap_or_default();
                let Some(long) = arg.get_long() else { continue };
                if !names.iter().any(|name| NUMERIC.contains(&name.as_str())) {
                    continue;
                }
                let flag = format!("--{long}");
                for value in ["-5", "-0.5x", "--help"] {
                    let Err(error) = understand([path, &[flag.as_str(), value]].concat()) else { continue };
                    let said = error.to_string();
                    // A negative number may be right there: then it is something else that is wrong.
                    let right = error.kind() == ErrorKind::MissingRequiredArgument && value == "-5";
                    let named = said.contains(&format!("invalid value '{value}' for '{flag}"));
                    assert!(right || named && said.lines().next().is_some_and(|line| line.contains(": ")), "{said}");
                    *found += 1;
                }
            }
        }
        let mut found = 0;
        each(&built(Cli::command()), &["agent-cli"], &mut found);
        assert!(found > 60, "{found}");
    }

    #[test]
    fn one_hyphen_for_two_is_told() {
        for words in
            [&["agent-cli", "generate", "-max-tokens", "5", "hello"][..], &["agent-cli", "generate", "-seed=7", "x"]]
        {
            let said = refused(words);
            assert!(said.contains("unknown flag '-") && said.contains("; did you mean --"), "{said}");
        }
    }

    #[test]
    fn text_that_must_be_utf_8_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        let words = [&b"agent-cli"[..], b"generate", b"a\xffb"].map(|word| OsString::from_vec(word.to_vec()));
        let said = understand(words).map(drop).unwrap_err().to_string();
        assert!(said.contains(r#"the argument "a\xFFb" is not UTF-8 text"#), "{said}");
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
