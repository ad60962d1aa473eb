//! The terminal: taken, drawn on, listened to, and given back on every way out.

use std::io;
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::layout::Rect;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::mpsc::{self, Receiver};

use super::draw::{Light, draw};
use super::fleet::Fleet;
use crate::exit::Failure;
use crate::terminal;

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
    terminal::steers(&io::stdin()) && terminal::steers(&io::stdout())
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

    /// Gives the terminal back, waits until this program is continued, and takes the terminal again.
    pub(crate) fn suspend(&mut self) -> Result<(), Failure> {
        self.give_back();
        terminal::obey(SUSPEND);
        enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| self.redraw())
            .map_err(|error| failed(&error))
    }

    /// Clears the terminal, so that the next picture is written whole. `Terminal::clear` would ask where the cursor is, and the
    /// thread that waits for keys would take the answer.
    fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    fn give_back(&mut self) {
        // A terminal that is gone takes nothing back.
        let _ = ratatui::try_restore();
        let _ = self.terminal.show_cursor();
    }

    /// Its size.
    pub(crate) fn area(&self) -> Rect {
        self.terminal.size().map(|size| Rect::new(0, 0, size.width, size.height)).unwrap_or_default()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
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

/// What a shell or `kill -TSTP` sends to have a program wait.
const SUSPEND: i32 = signal_hook::consts::SIGTSTP;

/// Each time that this program is to wait.
pub(crate) fn suspensions() -> Result<Signal, Failure> {
    terminal::listen(SignalKind::from_raw(SUSPEND))
}
