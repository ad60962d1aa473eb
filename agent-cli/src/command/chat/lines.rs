//! Lines that a person enters, with editing and history at a terminal, and plain lines elsewhere.

use std::io::{self, IsTerminal as _};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::exit::Failure;
use crate::output;

/// What came from the person.
#[derive(Debug)]
pub(super) enum Line {
    Text(String),
    /// Ctrl-D, Ctrl-C twice, or the end of the input.
    End,
}

/// A source of lines.
pub(super) struct Lines {
    /// Away while a thread waits for a line.
    editor: Option<DefaultEditor>,
    interactive: bool,
}

impl Lines {
    /// Reads from standard input.
    pub(super) fn open() -> Result<Self, Failure> {
        let editor = DefaultEditor::new().map_err(failed)?;
        Ok(Self { editor: Some(editor), interactive: io::stdin().is_terminal() })
    }

    /// Whether a person sits there.
    pub(super) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Waits for the next line. At a terminal one Ctrl-C drops the line, a second one leaves.
    pub(super) async fn next(&mut self) -> Result<Line, Failure> {
        let mut warned = false;
        loop {
            match self.read().await? {
                Ok(line) => return Ok(Line::Text(line)),
                Err(ReadlineError::Eof) => return Ok(Line::End),
                Err(ReadlineError::Interrupted) if warned => return Ok(Line::End),
                Err(ReadlineError::Interrupted) => {
                    warned = true;
                    output::aside("(Ctrl-C again, or Ctrl-D, leaves)");
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Reads one line on a thread of its own, so that the connection lives on meanwhile.
    async fn read(&mut self) -> Result<Result<String, ReadlineError>, Failure> {
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
        let (editor, line) = if self.interactive {
            // The editor itself sees Ctrl-C, and sets the terminal right before it returns.
            reading.await
        } else {
            tokio::select! {
                done = reading => done,
                _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted),
            }
        }
        .map_err(|_| lost())?;
        self.editor = Some(editor);
        Ok(line)
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::Failed(format!("cannot read a line from standard input: {error}"))
}
