//! SIGTERM and SIGINT: the first asks the daemon to stop, the second ends it at once. SIGHUP: it reads its configuration again.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The signals that stop the daemon, caught from the moment this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Of a terminal that is closed: only a daemon without one reads its configuration again.
    closed: Option<Signal>,
}

/// SIGHUP, caught from the moment this is made.
#[derive(Debug)]
pub struct ReloadSignal(Option<Signal>);

impl StopSignals {
    /// Catches the signals. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            closed: by_hand().then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the first signal. From then on, the next one ends the process at once, without any cleaning up, with
    /// the exit code that a shell shows for it.
    pub async fn first(mut self) {
        let (name, _) = self.next().await;
        info!(signal = name, "stopping; a second signal ends the process at once");
        tokio::spawn(async move {
            let (name, code) = self.next().await;
            warn!(signal = name, "second signal: ending at once");
            signal_hook::low_level::exit(code);
        });
    }

    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + signal_hook::consts::SIGTERM),
            _ = self.interrupt.recv() => ("SIGINT", 128 + signal_hook::consts::SIGINT),
            () = received(&mut self.closed) => ("SIGHUP", 128 + signal_hook::consts::SIGHUP),
        }
    }
}

impl ReloadSignal {
    /// Catches the signal. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self((!by_hand()).then(|| signal(SignalKind::hangup())).transpose()?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        received(&mut self.0).await;
    }
}

/// Whether somebody started the daemon in a terminal.
fn by_hand() -> bool {
    io::stdin().is_terminal()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
