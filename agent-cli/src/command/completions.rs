//! `agent-cli completions`: a script that completes this command line in a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Failure;
use crate::output;

/// Arguments of `agent-cli completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agent-cli completions bash > ~/.local/share/bash-completion/completions/agent-cli")]
pub(crate) struct Args {
    /// The shell to write for
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agent-cli", &mut script);
    output::raw(&script)
}
