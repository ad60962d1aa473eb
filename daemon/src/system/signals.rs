//! SIGTERM and SIGINT: the first asks the daemon to stop, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The signals that stop the daemon, caught from the moment this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches the signals. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
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
        }
    }
}
