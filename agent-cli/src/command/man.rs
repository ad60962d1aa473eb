//! `agent-cli man`: the manual pages, made from the command line's own definitions. For packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Cli;
use crate::exit::{CODES, Failure};
use crate::parse;

/// Arguments of `agent-cli man`.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// The folder, made where it is missing
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::Failed(format!("{}: cannot be written: {error}", args.to.display()));
    fs::create_dir_all(&args.to).map_err(cannot)?;
    write(&everything(), &args.to).map_err(cannot)
}

/// The whole command line. The subcommand `help` of each command is no page of its own.
fn everything() -> clap::Command {
    parse::built(Cli::command().disable_help_subcommand(true))
}

/// A page for the command, and one for each below it.
fn write(command: &clap::Command, to: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, to)?;
    }
    let man = page_of(command);
    fs::write(to.join(man.get_filename()), page(command, &man)?)
}

fn page_of(command: &clap::Command) -> Man {
    Man::new(command.clone()).manual("Recurve").source(concat!("Recurve ", env!("CARGO_PKG_VERSION")))
}

fn page(command: &clap::Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let whole = command.get_name() == "agent-cli";
    let mut end = Roff::new();
    if !whole && let Some(text) = command.get_after_help() {
        notes(&mut end, &text.to_string());
    }
    end.control("SH", ["EXIT STATUS"]);
    if whole {
        for (code, meaning) in CODES {
            end.control("TP", []).text([bold(code.to_string())]).text([roman(meaning)]);
        }
    } else {
        end.text([roman("See "), bold("agent-cli"), roman("(1).")]);
    }
    end.control("SH", ["SEE ALSO"]);
    if !whole {
        end.text([bold("agent-cli"), roman("(1),")]);
    }
    end.text([bold("recurved"), roman("(8), "), bold("recurved.toml"), roman("(5)")]);
    end.to_writer(&mut page)?;
    Ok(page)
}

/// What stands below the options in `--help`: examples are shown as they are typed, the rest as text.
fn notes(page: &mut Roff, text: &str) {
    let (mut titled, mut typed) = (false, false);
    for line in text.lines() {
        let command = line.strip_prefix("  ");
        if typed && command.is_none() {
            page.control("fi", []).control("RE", []).control("PP", []);
            typed = false;
        }
        match command {
            _ if matches!(line, "Example:" | "Examples:") => {
                page.control("SH", ["EXAMPLES"]);
                titled = true;
                continue;
            }
            Some(command) => {
                if !typed {
                    page.control("RS", ["4"]).control("nf", []);
                    typed = true;
                }
                page.text([roman(command)]);
                continue;
            }
            None => {}
        }
        if !titled {
            page.control("SH", ["NOTES"]);
            titled = true;
        }
        if line.is_empty() {
            page.control("PP", []);
        } else {
            page.text([roman(line)]);
        }
    }
    if typed {
        page.control("fi", []).control("RE", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write(&everything(), folder.path()).unwrap();
        for name in ["agent-cli", "agent-cli-generate", "agent-cli-node-describe", "agent-cli-trust-init"] {
            let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
                assert!(page.contains(&format!(".SH {section}")), "{name}: {section}");
            }
        }
        for name in ["agent-cli-man", "agent-cli-help", "agent-cli-node-help"] {
            assert!(!folder.path().join(format!("{name}.1")).exists(), "{name}");
        }
        let whole = fs::read_to_string(folder.path().join("agent-cli.1")).unwrap();
        assert!(whole.contains("interrupted with Ctrl\\-C"), "{whole}");
    }

    #[test]
    fn examples_are_typed_and_the_rest_is_text() {
        let mut page = Roff::new();
        notes(&mut page, "Words.\n\nExamples:\n  agent-cli a\n  agent-cli b\nMore.");
        let text = page.to_roff();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        let order = [".SH NOTES", "Words", ".SH EXAMPLES", ".nf", "agent\\-cli a", "agent\\-cli b", ".fi", "More"];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{text}");
    }
}
