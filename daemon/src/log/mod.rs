//! The log: systemd's journal where standard error is that, standard error elsewhere; the newest lines also in memory, for
//! whoever asks the node. ERROR means that a person must act.
//!
//! A line with a field `event` is an event of the node's history too, of the kind that it names, and so is every line of
//! level WARN or ERROR.

mod event;
mod fields;
mod journal;
mod ring;

use std::io::stderr;
use std::sync::{Arc, Mutex, PoisonError};

use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, registry, reload};

use crate::config::{LogFormat, LogSettings, colours};
use crate::telemetry::Telemetry;
use event::Events;
use journal::Journal;
pub use ring::{Found, Line, Ring};

/// The log of this process.
#[derive(Debug, Clone)]
pub struct Log {
    ring: Arc<Ring>,
    events: Events,
    filters: Vec<reload::Handle<Targets, Registry>>,
    level: Arc<Mutex<String>>,
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

impl Log {
    /// Starts logging. Once in a process; a later one has lines of its own, and none come.
    pub fn start(settings: &LogSettings) -> Self {
        let (lines, journal_error) = lines(settings);
        let (ring, events) = (Arc::new(Ring::default()), Events::default());
        let (shown, show) = reload::Layer::new(settings.level.filter.clone());
        let (kept, keep) = reload::Layer::new(settings.level.filter.clone());
        let layers: Vec<Boxed> = vec![
            lines.with_filter(shown).boxed(),
            ring::Keep(Arc::clone(&ring)).with_filter(kept).boxed(),
            events.clone().with_filter(event::filter()).boxed(),
        ];
        // Fails only where a subscriber is set already, as in tests.
        let _ = registry().with(layers).try_init();
        if let Some(error) = journal_error {
            warn!(%error, "the journal cannot be written: lines go to standard error");
        }
        let level = Arc::new(Mutex::new(settings.level.text.clone()));
        Self { ring, events, filters: vec![show, keep], level }
    }

    /// Events of the log go there from now on.
    pub fn attach(&self, telemetry: &Arc<Telemetry>) {
        self.events.attach(telemetry);
    }

    /// The newest lines.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// What is logged, as `log.level` says it.
    pub fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs more or less from now on. Gives what it was before.
    pub fn set_level(&self, text: &str, filter: &Targets) -> String {
        for handle in &self.filters {
            // Fails only where the log is gone.
            let _ = handle.reload(filter.clone());
        }
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *level, text.to_owned())
    }
}

/// Whether standard error is systemd's journal.
pub fn is_journal() -> bool {
    connected_to_journal()
}

/// Where lines are shown, and why that is not the journal although it should be.
fn lines(settings: &LogSettings) -> (Boxed, Option<std::io::Error>) {
    let mut failed = None;
    // Made only where a journal is at the other end: elsewhere its socket may be missing.
    if connected_to_journal() {
        match JournalLog::new() {
            Ok(journal) => return (Journal::new(journal).boxed(), None),
            Err(error) => failed = Some(error),
        }
    }
    let lines = match settings.format {
        LogFormat::Text => fmt::layer().with_writer(stderr).with_ansi(colours(&stderr())).boxed(),
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).boxed(),
    };
    (lines, failed)
}
