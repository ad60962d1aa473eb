//! Standard output: results as text or JSON, and answers as they arrive.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::exit::Failure;

/// In which form results are printed: for people, or as one JSON object on one line for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// What a failed write to standard output means.
pub(crate) fn failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::OutputClosed
    } else {
        Failure::Failed(format!("cannot write to standard output: {error}"))
    }
}

/// Prints `text` as it is, without a line end of its own.
pub(crate) fn raw(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(|error| failed(&error))
}

/// Prints `text` as one line, or several, with a line end.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() { printable(text) } else { Cow::Borrowed(text) };
    raw(format!("{text}\n").as_bytes())
}

/// Prints one JSON object on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("cannot write the result as JSON: {error}")))?;
    raw(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error, for what is beside the result. A closed standard error is nobody's loss.
pub(crate) fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// The text without characters that would steer a terminal: each becomes U+FFFD. Line ends and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(steers) { Cow::Owned(text.replace(steers, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Writes an answer piece by piece, each at once, and ends it with exactly one line end: those at the end of what came
/// so far are held back until something follows.
#[derive(Debug)]
pub(crate) struct Streamed<W> {
    out: W,
    for_terminal: bool,
    held: usize,
    begun: bool,
}

impl Streamed<io::Stdout> {
    /// To standard output.
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let for_terminal = out.is_terminal();
        Self::new(out, for_terminal)
    }
}

impl<W: Write> Streamed<W> {
    fn new(out: W, for_terminal: bool) -> Self {
        Self { out, for_terminal, held: 0, begun: false }
    }

    /// Writes the next piece.
    pub(crate) fn push(&mut self, text: &str) -> Result<(), Failure> {
        let body = text.trim_end_matches('\n');
        if !body.is_empty() {
            let mut piece = "\n".repeat(std::mem::take(&mut self.held));
            if self.for_terminal {
                piece.push_str(&printable(body));
            } else {
                piece.push_str(body);
            }
            self.begun = true;
            self.write(&piece)?;
        }
        self.held += text.len() - body.len();
        Ok(())
    }

    /// Ends the answer.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.write("\n")
    }

    /// Ends an answer that broke off, so that a message about it begins on its own line.
    pub(crate) fn broken_off(mut self) -> Result<(), Failure> {
        if self.begun { self.write("\n") } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(pieces: &[&str], for_terminal: bool) -> String {
        let mut bytes = Vec::new();
        let mut out = Streamed::new(&mut bytes, for_terminal);
        for piece in pieces {
            out.push(piece).unwrap();
        }
        out.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_answer_ends_with_exactly_one_line_end() {
        for (pieces, expected) in [
            (&["on"][..], "on\n"),
            (&["on\n"], "on\n"),
            (&["on", "\n", "\n"], "on\n"),
            (&["a\n", "\nb"], "a\n\nb\n"),
            (&["", "\n\n"], "\n"),
            (&[], "\n"),
        ] {
            assert_eq!(streamed(pieces, false), expected, "{pieces:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn however_an_answer_is_cut_it_is_printed_whole(pieces in proptest::collection::vec("[ab\n]{0,4}", 0..8)) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            proptest::prop_assert_eq!(streamed(&pieces, false), format!("{}\n", whole.trim_end_matches('\n')));
        }

        #[test]
        fn printable_text_holds_nothing_that_steers(text in ".*") {
            let printed = printable(&text);
            proptest::prop_assert!(!printed.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            proptest::prop_assert_eq!(printed.chars().count(), text.chars().count());
        }
    }

    #[test]
    fn what_would_steer_a_terminal_reaches_only_files() {
        assert_eq!(streamed(&["a\x1b[2Jb\tc"], true), "a\u{fffd}[2Jb\tc\n");
        assert_eq!(streamed(&["a\x1b[2Jb\tc"], false), "a\x1b[2Jb\tc\n");
    }

    #[test]
    fn an_answer_that_broke_off_before_it_began_prints_nothing() {
        let mut bytes = Vec::new();
        Streamed::new(&mut bytes, false).broken_off().unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(failed(&error), Failure::OutputClosed);
        let error = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(failed(&error), Failure::Failed(_)));
    }
}
