//! Lines that a person enters, with editing and history at a terminal, and plain lines elsewhere.

use std::io::{self, IsTerminal as _};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::plain::Plain;
use crate::exit::Failure;
use crate::output;
use crate::terminal::{self, Modes};

/// What came from the person.
#[derive(Debug)]
pub(super) enum Line {
    Text(String),
    /// A line that is no text: what is wrong with it.
    Wrong(String),
    /// Ctrl-D, Ctrl-C twice, or the end of the input.
    End,
}

/// One attempt to read a line.
pub(super) enum Read {
    Line(Line),
    /// Ctrl-C.
    Interrupted,
}

/// A source of lines.
pub(super) struct Lines {
    source: Source,
    interactive: bool,
}

enum Source {
    /// Keys at a terminal that can be steered.
    Keys(Box<Keys>),
    /// Whole lines.
    Plain(Plain),
}

impl Lines {
    /// Reads from standard input.
    pub(super) fn open() -> Result<Self, Failure> {
        let interactive = io::stdin().is_terminal();
        let source = if terminal::steers(&io::stdin()) && io::stdout().is_terminal() {
            Source::Keys(Box::new(Keys::open()?))
        } else {
            Source::Plain(Plain::open(interactive))
        };
        Ok(Self { source, interactive })
    }

    /// Whether a person sits there.
    pub(super) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether the terminal is in other modes while a line is entered, and must be given back.
    pub(super) fn holds_terminal(&self) -> bool {
        matches!(self.source, Source::Keys(_))
    }

    /// Waits for the next line. At a terminal one Ctrl-C drops the line, a second one leaves.
    pub(super) async fn next(&mut self) -> Result<Line, Failure> {
        let mut warned = false;
        loop {
            let read = match &mut self.source {
                Source::Keys(keys) => keys.next().await?,
                Source::Plain(plain) => plain.next().await?,
            };
            match read {
                Read::Line(line) => return Ok(line),
                Read::Interrupted if !self.interactive => return Err(Failure::Interrupted),
                Read::Interrupted if warned => return Ok(Line::End),
                Read::Interrupted => {
                    warned = true;
                    output::aside("(Ctrl-C again, or Ctrl-D, leaves)");
                }
            }
        }
    }
}

/// An editor of lines.
struct Keys {
    /// Away while a thread waits for a line.
    editor: Option<DefaultEditor>,
    /// Of the terminal before the editor had it.
    before: Modes,
}

impl Keys {
    fn open() -> Result<Self, Failure> {
        let before = Modes::now();
        Ok(Self { editor: Some(DefaultEditor::new().map_err(failed)?), before })
    }

    /// Reads one line on a thread of its own, so that the connection lives on meanwhile. The editor itself sees Ctrl-C, and sets
    /// the terminal right before it returns.
    async fn next(&mut self) -> Result<Read, Failure> {
        let lost = || Failure::Failed("the thread that reads lines is gone".to_owned());
        let mut editor = self.editor.take().ok_or_else(lost)?;
        let reading = tokio::task::spawn_blocking(move || {
            let line = editor.readline("> ");
            if let Ok(line) = &line {
                // The history holds a line or drops it; neither concerns the conversation.
                let _ = editor.add_history_entry(line);
            }
            (editor, line)
        });
        let (editor, line) = reading.await.map_err(|_| lost())?;
        self.editor = Some(editor);
        match line {
            Ok(line) => Ok(Read::Line(Line::Text(line))),
            Err(ReadlineError::Eof) => Ok(Read::Line(Line::End)),
            Err(ReadlineError::Interrupted) => Ok(Read::Interrupted),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                // The rest of the line would be a line of its own.
                terminal::drop_typed();
                Ok(Read::Line(Line::Wrong("the line is left out: it holds a byte that is not UTF-8 text".to_owned())))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Keys {
    /// A line was being entered: its thread waits on, and nobody else gives the terminal back.
    fn drop(&mut self) {
        if self.editor.is_none() {
            self.before.restore();
        }
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::Failed(format!("cannot read a line from standard input: {error}"))
}
