//! Lines for systemd's journal, each with its fields.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use systemd_journal_logger::JournalLog;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::Fields;

/// Fields whose names in the journal are not just their own in capitals.
const NAMES: [(&str, &str); 2] = [("request", "REQUEST_ID"), ("status", "GRPC_STATUS")];

/// The field that has the message without the other fields.
const BARE: &str = "LINE";

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
        // Most of who reads the journal sees messages only.
        let whole = with_fields(&message, &fields);
        let mut fields: BTreeMap<String, String> = fields.into_iter().map(named).collect();
        fields.insert(BARE.to_owned(), message);
        // A journal that is full or restarting takes no line, and there is no other place to say so.
        let _ = self.0.journal_send(
            &log::Record::builder()
                .args(format_args!("{whole}"))
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

/// A message, and the fields after it, as a terminal shows them.
fn with_fields(message: &str, fields: &BTreeMap<String, String>) -> String {
    let mut line = message.to_owned();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let plain = !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        // Writing to a string never fails.
        let _ = if plain { write!(line, " {name}={value}") } else { write!(line, " {name}={value:?}") };
    }
    line
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_fields_behind_it() {
        let fields = [("a", "1"), ("b", "two words"), ("c", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(with_fields("ready", &fields.into()), "ready a=1 b=\"two words\"");
    }
}
