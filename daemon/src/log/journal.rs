//! Lines for systemd's journal, each with its fields.

use std::collections::BTreeMap;

use systemd_journal_logger::JournalLog;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::Fields;

/// Fields whose names in the journal are not just their own in capitals.
const NAMES: [(&str, &str); 2] = [("request", "REQUEST_ID"), ("status", "GRPC_STATUS")];

/// Writes to the journal.
pub(super) struct Journal(JournalLog);

impl Journal {
    pub(super) fn new(journal: JournalLog) -> Self {
        Self(journal)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let Fields { message, fields } = Fields::of(event);
        let named = |(name, text): (String, String)| match NAMES.iter().find(|(ours, _)| *ours == name) {
            Some((_, theirs)) => ((*theirs).to_owned(), text),
            None => (name, text),
        };
        let fields: BTreeMap<String, String> = fields.into_iter().map(named).collect();
        // A journal that is full or restarting takes no line, and there is no other place to say so.
        let _ = self.0.journal_send(
            &log::Record::builder()
                .args(format_args!("{message}"))
                .level(level(*metadata.level()))
                .target(metadata.target())
                .module_path(metadata.module_path())
                .file(metadata.file())
                .line(metadata.line())
                .key_values(&fields)
                .build(),
        );
    }
}

/// The level whose priority in the journal is the right one: the logger has INFO as `notice` and DEBUG as `info`, one step above
/// what syslog means by these words.
fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Debug,
        _ => log::Level::Trace,
    }
}
