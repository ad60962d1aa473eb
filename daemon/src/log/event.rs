//! Lines that are events of the node's history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use recurve_telemetry::event::{KINDS, LOGGED_ERROR, LOGGED_WARNING};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::Fields;
use crate::telemetry::Telemetry;

/// The field that names the kind of an event.
const FIELD: &str = "event";
/// Different lines that are remembered, so that one that comes again and again is one event in a while.
const MOST_REMEMBERED: usize = 256;
const WARNING_AGAIN: Duration = Duration::from_secs(60 * 60);
const ERROR_AGAIN: Duration = Duration::from_secs(60);

/// Makes events of lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Events(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    telemetry: OnceLock<Weak<Telemetry>>,
    told: Mutex<HashMap<String, Instant>>,
}

/// Lines that may be events, whatever is shown of them.
pub(super) fn filter() -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("recurved", LevelFilter::INFO)
}

impl Events {
    pub(super) fn attach(&self, telemetry: &Arc<Telemetry>) {
        // Once in a process.
        let _ = self.0.telemetry.set(Arc::downgrade(telemetry));
    }

    /// Whether a line of this text is an event again.
    fn again(&self, text: &str, after: Duration) -> bool {
        // An entry is written whole.
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.get(text).is_some_and(|at| now.duration_since(*at) < after) {
            return false;
        }
        if told.len() >= MOST_REMEMBERED {
            told.retain(|_, at| now.duration_since(*at) < ERROR_AGAIN);
        }
        if told.len() >= MOST_REMEMBERED {
            told.clear();
        }
        told.insert(text.to_owned(), now);
        true
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(telemetry) = self.0.telemetry.get().and_then(Weak::upgrade) else { return };
        let named = event.metadata().fields().field(FIELD).is_some();
        let level = *event.metadata().level();
        if !named && level > Level::WARN {
            return;
        }
        let Fields { message, mut fields } = Fields::of(event);
        let kind = fields.remove(FIELD).and_then(|name| KINDS.iter().find(|kind| kind.name == name));
        let kind = match (kind, level) {
            (Some(kind), _) => *kind,
            (None, Level::ERROR) if self.again(&message, ERROR_AGAIN) => LOGGED_ERROR,
            (None, Level::WARN) if self.again(&message, WARNING_AGAIN) => LOGGED_WARNING,
            _ => return,
        };
        telemetry.event(kind, message, fields);
    }
}
