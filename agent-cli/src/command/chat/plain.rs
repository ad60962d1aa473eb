//! Whole lines of standard input, where nothing can be edited: from a file or a pipe, or a terminal without escape sequences.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::thread;

use tokio::sync::mpsc::{self, Receiver};

use super::lines::{Line, Read};
use crate::exit::Failure;
use crate::input::LARGEST;

/// Lines of standard input.
pub(super) struct Plain {
    lines: Receiver<io::Result<Vec<u8>>>,
    /// Whether to show where a person enters something.
    prompt: bool,
    /// How many lines came.
    count: usize,
}

impl Plain {
    /// The thread that reads them ends with the program.
    pub(super) fn open(prompt: bool) -> Self {
        let (out, lines) = mpsc::channel(1);
        thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                let read = io::stdin().lock().take(LARGEST + 1).read_until(b'\n', &mut line);
                let ended = !matches!(read, Ok(bytes) if bytes > 0);
                if matches!(read, Ok(0)) || out.blocking_send(read.map(|_| line)).is_err() || ended {
                    break;
                }
            }
        });
        Self { lines, prompt, count: 0 }
    }

    pub(super) async fn next(&mut self) -> Result<Read, Failure> {
        if self.prompt {
            let _ = io::stderr().write_all(b"> ");
        }
        let line = tokio::select! {
            line = self.lines.recv() => line,
            _ = tokio::signal::ctrl_c() => return Ok(Read::Interrupted),
        };
        self.count += 1;
        match line {
            None => Ok(Read::Line(Line::End)),
            Some(Ok(line)) => self.text(line).map(Read::Line),
            Some(Err(error)) => Err(Failure::Failed(format!("cannot read standard input: {error}"))),
        }
    }

    /// The text of a line, without its end.
    fn text(&self, line: Vec<u8>) -> Result<Line, Failure> {
        if line.len() as u64 > LARGEST {
            let words = format!(
                "line {} of standard input has more than {LARGEST} bytes, the most that one request can hold: make it shorter",
                self.count
            );
            return Err(Failure::Usage(words));
        }
        Ok(match String::from_utf8(line) {
            Ok(mut line) => {
                if line.ends_with('\n') {
                    line.pop();
                }
                Line::Text(line)
            }
            Err(error) => Line::Wrong(format!(
                "line {} is left out: it is not UTF-8 text (byte {} is the first wrong one)",
                self.count,
                error.utf8_error().valid_up_to()
            )),
        })
    }
}
