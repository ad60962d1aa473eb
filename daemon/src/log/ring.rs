//! The newest lines, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::Fields;

/// Bytes of text that are kept, about.
const MOST: usize = 2 << 20;
/// What a line takes besides its text, about.
const LINE: usize = 160;

/// A line of the log.
#[derive(Debug, Clone)]
pub struct Line {
    /// Counts the lines, from 1.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// How bad it is.
    pub level: Level,
    /// Which part of the program.
    pub target: &'static str,
    /// What it says.
    pub message: String,
    /// With which values.
    pub fields: BTreeMap<String, String>,
}

impl Line {
    fn bytes(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(name, text)| name.len() + text.len()).sum();
        LINE + self.message.len() + fields
    }

    /// Whether the message or a field contains this text.
    pub fn contains(&self, text: &str) -> bool {
        self.message.contains(text)
            || self.target.contains(text)
            || self.fields.values().any(|value| value.contains(text))
    }
}

/// Lines that were looked for.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines, the oldest first.
    pub lines: Vec<Arc<Line>>,
    /// Lines after the one that was named that are in memory no more.
    pub lost: u64,
    /// The last line that was looked at.
    pub last: u64,
}

/// The newest lines.
#[derive(Debug)]
pub struct Ring {
    kept: Mutex<Kept>,
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    last: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { kept: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Ring {
    /// The lines after this one that are wanted.
    pub fn after(&self, after: u64, wanted: impl Fn(&Line) -> bool) -> Found {
        let kept = self.kept();
        let lines = kept.lines.iter().filter(|line| line.number > after && wanted(line)).cloned().collect();
        let first = kept.lines.front().map_or(kept.last + 1, |line| line.number);
        Found { lines, lost: first.saturating_sub(after + 1), last: kept.last }
    }

    /// Changes with every line.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whatever panicked, a line is there or not.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut line: Line) {
        let mut kept = self.kept();
        kept.last += 1;
        line.number = kept.last;
        kept.bytes += line.bytes();
        kept.lines.push_back(Arc::new(line));
        while kept.bytes > MOST {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.bytes();
        }
        self.news.send_replace(kept.last);
    }
}

/// Puts lines into the ring.
pub(super) struct Keep(pub(super) Arc<Ring>);

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let Fields { message, fields } = Fields::of(event);
        let (level, target) = (*metadata.level(), metadata.target());
        self.0.push(Line { number: 0, at: SystemTime::now(), level, target, message, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        let (at, fields) = (SystemTime::now(), BTreeMap::new());
        Line { number: 0, at, level: Level::INFO, target: "t", message: message.to_owned(), fields }
    }

    #[test]
    fn the_newest_lines_stay_and_what_left_is_counted() {
        let ring = Ring::default();
        for _ in 0..100 {
            ring.push(line(&"x".repeat(100_000)));
        }
        let found = ring.after(0, |_| true);
        assert!((10..=21).contains(&found.lines.len()), "{}", found.lines.len());
        assert_eq!(found.lost + found.lines.len() as u64, 100);
        assert_eq!(found.last, 100);
        let later = ring.after(99, |_| true);
        assert_eq!((later.lines.len(), later.lost), (1, 0));
        assert!(ring.after(0, |line| line.contains("y")).lines.is_empty());
    }
}
