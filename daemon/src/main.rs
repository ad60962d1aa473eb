//! `recurved`: reads the configuration, binds the addresses, serves until it is told to stop.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use recurved::config::{self, Cli, Command, Entry, Flags, Format, Held, Loaded, Settings};
use recurved::doctor;
use recurved::grpc::{Listener, concerns_at};
use recurved::log::{self, Log};
use recurved::system::signals::{ReloadSignal, StopSignals};
use recurved::system::socket_unit::{self, SocketUnit};
use recurved::system::sockets::Inherited;
use recurved::system::{exit, service};
use recurved::trust::TrustError;
use recurved::{Control, Error};
use tokio::sync::mpsc;
use tracing::{error, warn};

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            return if error.use_stderr() { exit::USAGE.into() } else { written(printed) };
        }
    };
    match cli.command {
        None => serve(&cli.flags),
        Some(Command::CheckConfig { format }) => check_config(&cli.flags, format),
        Some(Command::Doctor { format }) => doctor(&cli.flags, format),
        Some(Command::ConfigReference) => print(&config::reference_page()),
        Some(Command::ConfigTemplate) => print(&config::template()),
        Some(Command::Man { to }) => manual(&to),
    }
}

fn serve(flags: &Flags) -> ExitCode {
    // Before there are threads: it changes the environment.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            service::failed(&error);
            return exit::UNAVAILABLE.into();
        }
    };
    let loaded = config::load(flags, &inherited.held());
    let Some(settings) = loaded.settings else {
        let problems = config::problems(&loaded.report.problems);
        let _ = write!(std::io::stderr(), "{problems}");
        service::failed(&problems);
        return exit::CONFIG.into();
    };
    let log = Log::start(&settings.log);
    // To the journal as an error.
    let prefix = if log::is_journal() { "<3>" } else { "recurved: " };
    if let Err(error) = recurve_runtime::explain_bus_errors(prefix) {
        warn!(%error, "a weight file that is cut short would end the daemon without a word");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the system refuses threads");
            return exit::OS.into();
        }
    };
    runtime.block_on(listen_and_run(settings, loaded.report.values, log, inherited, flags.clone()))
}

async fn listen_and_run(
    settings: Settings,
    values: Vec<Entry>,
    log: Log,
    mut inherited: Inherited,
    flags: Flags,
) -> ExitCode {
    let (stop, reload) = match (StopSignals::catch(), ReloadSignal::catch()) {
        (Ok(stop), Ok(reload)) => (stop, reload),
        (Err(error), _) | (_, Err(error)) => {
            error!(%error, "signals cannot be caught");
            return exit::OS.into();
        }
    };
    let held = inherited.held();
    let mut listeners = Vec::new();
    for address in &settings.listen {
        let listener = match inherited.of(address) {
            Some(socket) => Listener::adopt(address, socket),
            None => Listener::bind(address).await,
        };
        match listener {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                error!("{error}");
                service::failed(&error.to_string());
                return exit::UNAVAILABLE.into();
            }
        }
    }
    let (loaded, reloads) = mpsc::channel(1);
    tokio::spawn(read_again(reload, flags, held, loaded));
    let control = Control { shutdown: stop.first(), reloads };
    match recurved::run(settings, values, log, listeners, control).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            service::failed(&error.to_string());
            if matches!(error, Error::Stuck(_)) {
                // ONNX Runtime computes on in a thread that nobody can end: nothing of it may be taken down beside that.
                std::process::abort();
            }
            code(&error).into()
        }
    }
}

/// Reads the configuration again at each signal.
async fn read_again(
    mut signal: ReloadSignal,
    flags: Flags,
    inherited: Vec<Held>,
    loaded: mpsc::Sender<config::Loaded>,
) {
    loop {
        signal.next().await;
        if loaded.send(config::load(&flags, &inherited)).await.is_err() {
            return;
        }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Bundle(error) => exit::of_bundle(error),
        Error::Model(_) | Error::Golden { .. } => exit::DATA,
        Error::Tls(_) => exit::CONFIG,
        Error::Engine(_) | Error::Prometheus(_) => exit::UNAVAILABLE,
        Error::Weights(_) => exit::OS,
        Error::Store(error) | Error::Models(error) | Error::Trust(TrustError::Store(error)) => exit::of_store(error),
        Error::Trust(_) => exit::CONFIG,
        Error::EngineFailed(_) | Error::Stuck(_) | Error::Internal(_) => exit::SOFTWARE,
    }
}

fn check_config(flags: &Flags, format: Format) -> ExitCode {
    let (loaded, unit) = as_service(flags);
    let trouble = unit.trouble.map(|trouble| format!("{}; {}", trouble.found(), trouble.advice()));
    let tls = loaded.settings.as_ref().and_then(|settings| settings.tls.as_ref());
    let concerns: Vec<String> =
        tls.map(|files| concerns_at(files, SystemTime::now())).iter().flatten().map(ToString::to_string).collect();
    let report = concerns.into_iter().map(Some).fold(loaded.noting(trouble), Loaded::noting).report;
    let printed = print(&match format {
        Format::Text => report.text(),
        Format::Json => report.json() + "\n",
    });
    if report.ok { printed } else { exit::CONFIG.into() }
}

fn doctor(flags: &Flags, format: Format) -> ExitCode {
    let (loaded, unit) = as_service(flags);
    let findings = doctor::examine_loaded(&loaded, &unit);
    let printed = print(&match format {
        Format::Text => doctor::text(&findings),
        Format::Json => doctor::json(&findings) + "\n",
    });
    match doctor::ill(&findings) {
        false => printed,
        true if loaded.report.ok => exit::UNAVAILABLE.into(),
        true => exit::CONFIG.into(),
    }
}

fn manual(to: &Path) -> ExitCode {
    match config::write_manual(to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: cannot be written: {error}", to.display());
            exit::OS.into()
        }
    }
}

/// The configuration as systemd's service would have it, with the socket unit that it would be handed; without, where the flags
/// name another file than the service's: that may be a daemon's that no systemd runs.
fn as_service(flags: &Flags) -> (Loaded, SocketUnit) {
    let unit = socket_unit::ask();
    if config::is_of_service(flags) {
        return (config::load(flags, &unit.held).refusing(&unit.refused), unit);
    }
    let addresses: Vec<String> = unit.held.iter().map(|held| held.address.to_string()).collect();
    let left_out = || {
        format!(
            "without the addresses of recurved.socket ({}), for this is not the service's file; as the service's, those that \
             other machines can reach need TLS",
            addresses.join(", ")
        )
    };
    (config::load(flags, &[]).noting((!addresses.is_empty()).then(left_out)), SocketUnit::default())
}

/// Writes to standard output.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The exit code after a write to standard output. A reader that closed it early, as `head` does, is no failure.
fn written(result: std::io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "recurved: cannot write to standard output: {error}");
            exit::IO.into()
        }
        _ => ExitCode::SUCCESS,
    }
}
