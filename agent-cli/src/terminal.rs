//! The terminal: what it understands, and how it is given back as it was on every way out.

use std::io::{self, IsTerminal, Write as _};

use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args;
use crate::exit::Failure;

/// Whether escape sequences may be written there: to a terminal that is not `dumb`.
pub(crate) fn steers(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !args::dumb_terminal()
}

/// Whether colours may be written there.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    steers(stream) && !args::no_color()
}

/// The modes of the terminal on standard input at one moment: echo, line by line or key by key, signals of keys.
pub(crate) struct Modes(Option<Termios>);

impl Modes {
    /// Those that it has now; none where it is no terminal.
    pub(crate) fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// Gives the terminal these modes again, and ends what an editor of lines had switched on.
    pub(crate) fn restore(&self) {
        let Some(modes) = &self.0 else { return };
        // A terminal that is gone takes nothing back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        if steers(&io::stdout()) {
            let _ = io::stdout().write_all(PASTE_OFF).and_then(|()| io::stdout().flush());
        }
    }
}

/// Text that is pasted is no longer marked as such; the cursor goes to a line of its own.
const PASTE_OFF: &[u8] = b"\x1b[?2004l\n";

/// Drops what was typed and not read yet.
pub(crate) fn drop_typed() {
    let _ = tcflush(io::stdin(), QueueSelector::IFlush);
}

/// Signals of one kind.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))
}

/// The signals that end a program. Without this it would end at once, and leave the terminal as it is.
pub(crate) struct Endings {
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Endings {
    /// From now on they end nothing by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    /// Waits for one of them, and returns the failure with which this program ends by it, after everything was put back.
    pub(crate) async fn next(&mut self) -> Failure {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        Failure::Killed(kind.as_raw_value())
    }
}

/// Does what the signal does by default: ends this program, or has it wait until it is continued.
pub(crate) fn obey(signal: i32) {
    // Where the system refuses that, the exit code says it.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}
