//! `recurved`: reads the configuration, binds the addresses, serves until it is told to stop.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use recurved::Error;
use recurved::config::{self, Cli, Command, Flags, Format, Settings};
use recurved::grpc::Listener;
use recurved::log::Log;
use recurved::system::{exit, signals::StopSignals};
use recurved::trust::TrustError;
use tracing::error;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        None => serve(&cli.flags),
        Some(Command::CheckConfig { format }) => check_config(&cli.flags, format),
        Some(Command::ConfigReference) => print(&config::reference_page()),
    }
}

fn serve(flags: &Flags) -> ExitCode {
    let loaded = config::load(flags);
    let Some(settings) = loaded.settings else {
        let _ = write!(std::io::stderr(), "{}", config::problems(&loaded.report.problems));
        return exit::CONFIG.into();
    };
    let log = Log::start(&settings.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the system refuses threads");
            return exit::OS.into();
        }
    };
    runtime.block_on(listen_and_run(settings, log))
}

async fn listen_and_run(settings: Settings, log: Log) -> ExitCode {
    let signals = match StopSignals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals cannot be caught");
            return exit::OS.into();
        }
    };
    let mut listeners = Vec::new();
    for address in &settings.listen {
        match Listener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                error!("{error}");
                return exit::UNAVAILABLE.into();
            }
        }
    }
    match recurved::run(settings, log, listeners, signals.first()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            if matches!(error, Error::Stuck(_)) {
                // ONNX Runtime computes on in a thread that nobody can end: nothing of it may be taken down beside that.
                std::process::abort();
            }
            code(&error).into()
        }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Bundle(error) => exit::of_bundle(error),
        Error::Model(_) => exit::DATA,
        Error::Tls(_) => exit::CONFIG,
        Error::Engine(_) | Error::Prometheus(_) => exit::UNAVAILABLE,
        Error::Weights(_) => exit::OS,
        Error::Store(error) | Error::Models(error) | Error::Trust(TrustError::Store(error)) => exit::of_store(error),
        Error::Trust(_) => exit::CONFIG,
        Error::EngineFailed(_) | Error::Stuck(_) | Error::Internal(_) => exit::SOFTWARE,
    }
}

fn check_config(flags: &Flags, format: Format) -> ExitCode {
    let report = config::load(flags).report;
    let printed = print(&match format {
        Format::Text => report.text(),
        Format::Json => report.json() + "\n",
    });
    if report.ok { printed } else { exit::CONFIG.into() }
}

/// Writes to standard output; a reader that went away is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
