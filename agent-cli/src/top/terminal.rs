//! The terminal: taken, drawn on, listened to, and given back on every way out.

use std::io::{self, IsTerminal as _};
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};

use super::draw::{Light, draw};
use super::fleet::Fleet;
use crate::exit::Failure;

/// What comes from the terminal.
#[derive(Debug)]
pub(crate) enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// It has another size.
    Resized,
}

/// The terminal while it is ours. A panic gives it back too, before its message is printed.
pub(crate) struct Screen {
    terminal: DefaultTerminal,
}

/// Whether there is a person with a terminal.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn failed(error: &io::Error) -> Failure {
    Failure::Failed(format!("the terminal cannot be used: {error}"))
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn take() -> Result<Self, Failure> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                // It may have been taken halfway.
                let _ = ratatui::try_restore();
                Err(failed(&error))
            }
        }
    }

    /// Draws what is known: only cells that changed are written.
    pub(crate) fn show(&mut self, fleet: &Fleet, light: &Light) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| draw(fleet, light, frame.area(), frame.buffer_mut()));
        drawn.map(drop).map_err(|error| failed(&error))
    }

    /// Its size.
    pub(crate) fn area(&self) -> Rect {
        self.terminal.size().map(|size| Rect::new(0, 0, size.width, size.height)).unwrap_or_default()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone takes nothing back.
        let _ = ratatui::try_restore();
        let _ = self.terminal.show_cursor();
    }
}

/// What is typed, until the terminal is gone. The thread that waits for it ends with the program.
pub(crate) fn input() -> Receiver<Input> {
    let (out, input) = mpsc::channel(64);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let input = match event {
                Event::Key(key) => Input::Key(key),
                Event::Resize(..) => Input::Resized,
                _ => continue,
            };
            if out.blocking_send(input).is_err() {
                break;
            }
        }
    });
    input
}

/// Waits until this program is told to end, or its terminal goes away.
pub(crate) async fn told_to_end() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")));
    let (mut terminate, mut hangup) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
