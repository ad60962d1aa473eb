//! The command line of `recurved`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::mistyped;
use crate::system::exit;

/// Where the configuration file is when nothing else is said.
pub(super) const DEFAULT_FILE: &str = "/etc/recurve/recurved.toml";

/// Serves RecurrentGemma over gRPC: a bundle, or the models that are deployed to it.
///
/// Settings come from defaults, then the configuration file, then RECURVE_* environment variables
/// (RECURVE_ENGINE__THREADS for engine.threads), then flags; the later wins. `recurved check-config` shows them all,
/// with where each came from.
#[derive(Debug, Parser)]
#[command(name = "recurved", version, after_help = exit::help())]
pub struct Cli {
    /// What to do. Default: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings given as flags.
    #[command(flatten)]
    pub flags: Flags,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// It is wrong, or asks for help or the version.
    pub fn read() -> Result<Self, clap::Error> {
        Self::understand(std::env::args_os())
    }

    /// The parser of the command line. Its own choice of colours would count a `CI` in the environment as a terminal that
    /// understands them.
    pub(super) fn parser() -> clap::Command {
        let color = if anstyle_query::term_supports_color() { ColorChoice::Auto } else { ColorChoice::Never };
        Self::command().color(color)
    }

    pub(super) fn understand(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let matches = Self::parser().try_get_matches_from(&words);
        let cli = matches.and_then(|mut matches| Self::from_arg_matches_mut(&mut matches));
        cli.map_err(|error| mistyped::explained(error, &words))
    }
}

/// Whether this stream is a terminal that understands colours, and its user wants them (<https://no-color.org>).
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && anstyle_query::term_supports_color() && !anstyle_query::no_color()
}

/// What `recurved` can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the settings in effect and the source of each. Exits with 78 when a setting is wrong.
    ///
    /// Without --config, or with the service's file, the sockets that systemd holds for the service are included.
    CheckConfig {
        /// How to print them.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Diagnoses this machine, the configuration and the files, and says how to mend what is wrong. Exits with 69 when the daemon
    /// would not serve, and with 78 when its configuration is wrong.
    ///
    /// Without --config, or with the service's file, the sockets that systemd holds for the service are included, but not opened.
    Doctor {
        /// How to print what was found.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Prints docs/configuration.md.
    #[command(hide = true)]
    ConfigReference,
    /// Prints the configuration file that packages install.
    #[command(hide = true)]
    ConfigTemplate,
    /// Writes the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder, made where it is missing.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Settings given as flags.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Configuration file (TOML) [default: /etc/recurve/recurved.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "RECURVE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Folder of the bundle to serve
    #[arg(long, value_name = "DIR", global = true)]
    pub bundle: Option<PathBuf>,
    /// Address to serve on, IP:PORT or unix:/PATH; may be given several times [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR", global = true)]
    pub listen: Vec<OsString>,
    /// Serve without encryption on addresses that other machines can reach
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Folder of the models and of the daemon's state [default: /var/lib/recurve]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug, trace, or TARGET=LEVEL,… [default: info]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_subcommand() {
        for line in [["recurved", "--bundle", "b", "check-config"], ["recurved", "check-config", "--bundle", "b"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.flags.bundle, Some(PathBuf::from("b")), "{line:?}");
            assert!(matches!(cli.command, Some(Command::CheckConfig { .. })));
        }
    }
}
