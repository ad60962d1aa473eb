//! The command line of `recurved`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// What to do; without it, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings given as flags.
    #[command(flatten)]
    pub flags: Flags,
}

/// What `recurved` can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the settings in effect and where each came from; exits with 78 when something is wrong. Without --config, or with the
    /// service's file, the sockets that systemd holds for the service belong to it.
    CheckConfig {
        /// How to print them.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Looks at this machine, its configuration and its files, and says what to do where something is wrong; exits with 69 when
    /// the daemon would not serve, and with 78 when its configuration is wrong. Without --config, or with the service's file, the
    /// sockets that systemd holds for the service belong to it, and are not tried.
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
    pub listen: Vec<String>,
    /// Serve without encryption on addresses that other machines can reach
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Folder for what must survive a restart [default: /var/lib/recurve]
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
