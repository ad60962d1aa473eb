//! `agent-cli`: makes bundles from checkpoints, and talks to the daemons that serve them.

mod args;
mod client;
mod command;
mod exit;
mod fleet;
mod history;
mod input;
mod interrupt;
mod output;
mod parse;
mod report;
mod status;
mod target;
mod terminal;
mod top;
mod values;
mod view;

use std::process::ExitCode;

use args::Command;
use exit::Failure;
use interrupt::or_interrupted;

fn main() -> ExitCode {
    let command = match parse::command_line() {
        Ok(line) => line.command,
        Err(code) => return code,
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.report();
            if let Failure::Killed(signal) = failure {
                terminal::obey(signal);
            }
            code
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Generate(args) => online(command::generate::run(args)),
        Command::Chat(args) => online(command::chat::run(args)),
        Command::Score(args) => online(or_interrupted(command::score::run(args))),
        Command::Tokenize(args) => online(or_interrupted(command::tokenize::run(args))),
        Command::Detokenize(args) => online(or_interrupted(command::detokenize::run(args))),
        Command::Bench(args) => online(or_interrupted(command::bench::run(args))),
        Command::Export(args) => online(command::export::run(args)),
        Command::Deploy(args) => online(command::deploy::run(args)),
        Command::Rollback(args) => online(or_interrupted(command::rollback::run(args))),
        Command::Telemetry(args) => online(or_interrupted(command::telemetry::run(args))),
        Command::Status(args) => online(or_interrupted(command::status::run(args))),
        Command::Top(args) => online(or_interrupted(command::top::run(args))),
        Command::Logs(args) => online(or_interrupted(command::logs::run(args))),
        Command::Node(args) => online(command::node::run(args)),
        Command::Doctor(args) => online(or_interrupted(command::doctor::run(args))),
        Command::Devices(args) => command::devices::run(args),
        Command::Push(args) => online(or_interrupted(command::push::run(args))),
        Command::Pull(args) => online(or_interrupted(command::pull::run(args))),
        Command::Models(args) => online(or_interrupted(command::models::run(args))),
        Command::Trust(args) => online(or_interrupted(command::trust::run(args))),
        Command::Bundle(args) => command::bundle::run(args),
        Command::Completions(args) => command::completions::run(args),
        Command::Man(args) => command::man::run(&args),
    }
}

/// Runs a command that talks to a daemon. One thread is enough for what one person asks, and measures most truly.
fn online(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the network runtime: {error}")))?;
    let result = runtime.block_on(command);
    // A thread that still waits for a line of input must not keep the process alive.
    runtime.shutdown_background();
    result
}
