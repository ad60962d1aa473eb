//! What the daemon knows of itself and of its machine, and whom it tells.
//!
//! Requests are recorded by [`Telemetry::request`], events by [`Telemetry::event`]; whatever stands at a moment is read by
//! [`observed`]. [`keeper`] reads all of it in turn and gives it to the [`history`] and to whom it is exported.

pub(crate) mod alarm;
mod export;
pub mod history;
pub mod host;
mod instruments;
mod keeper;
mod life;
mod observed;
mod outbox;
pub(crate) mod prometheus;
mod request;
mod spans;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::Resource;
use recurve_proto::v1::NodeEvent;
use recurve_telemetry::event::{self, Kind};
use recurve_telemetry::wire::metrics::v1::ResourceMetrics;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::config::Settings;
use crate::node::Node;
use alarm::Alarms;
use export::Export;
use history::{History, HistoryError, Limits, Opened};
pub use host::Readings;
use instruments::Instruments;
pub use keeper::Keeper;
use keeper::Sending;
use life::Life;
use observed::Observed;
use outbox::Outbox;
pub use outbox::{Message, Signal};
pub use request::{Outcome, Request};
use spans::Spans;
pub use spans::{CallSpan, Content, Parent};

/// Events that wait for the disk.
const EVENTS: usize = 256;
/// Batches of spans that do.
const SPANS: usize = 64;

/// The way in, for whoever has something to tell.
#[derive(Debug)]
pub struct Telemetry {
    life: Life,
    instruments: Instruments,
    observed: Arc<Observed>,
    history: Arc<History>,
    events: mpsc::Sender<NodeEvent>,
    interval: watch::Sender<Duration>,
    traces: AtomicU64,
    spans: Option<Spans>,
    content: bool,
    alarms: Alarms,
}

/// Telemetry that was started: the way in, and what looks after it.
#[derive(Debug)]
pub struct Started {
    /// The way in.
    pub telemetry: Arc<Telemetry>,
    /// Runs as a task.
    pub keeper: Keeper,
}

impl Telemetry {
    /// Opens the history, and has the instruments made. Blocks. A history that cannot be opened is kept in memory instead,
    /// which the log says: no request waits for it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn start(settings: &Settings) -> Result<Started, HistoryError> {
        let folder = folder(settings);
        let wanted = folder.clone();
        let kept = &settings.telemetry;
        let limits = Limits { bytes: kept.history_bytes, minutes: kept.minutes, hours: kept.hours };
        let Opened { history, damaged } = History::open(folder.as_deref(), limits).or_else(|error| {
            let folder = folder.as_deref().unwrap_or(std::path::Path::new("")).display();
            warn!(%error, %folder, "the history is kept in memory until it can be kept there");
            match &wanted {
                Some(wanted) => Ok(Opened { history: History::homeless(wanted, limits)?, damaged: None }),
                None => History::open(None, limits),
            }
        })?;
        let history = Arc::new(history);
        let life = Life::begin();
        let (observed, resource) = (Observed::new(settings), resource(&history, settings));
        let instruments = Instruments::new(resource.clone(), &observed);
        let (events, inbox) = mpsc::channel(EVENTS);
        let (give, spans_made) = mpsc::channel(SPANS);
        let (export, spans) = match &kept.collector {
            None => (None, None),
            Some(collector) => {
                let export =
                    Arc::new(Export::new(outbox(folder.as_deref(), kept.outbox_bytes)?, Arc::clone(&observed)));
                let sending = Sending { export, collector: collector.clone(), spans: spans_made };
                (Some(sending), Some(Spans::new(resource, give, Arc::clone(&observed))))
            }
        };
        let interval = watch::Sender::new(kept.interval);
        let traces = AtomicU64::new(kept.traces);
        let telemetry = Arc::new(Self {
            life,
            instruments,
            observed,
            history,
            events,
            interval,
            traces,
            spans,
            content: kept.content,
            alarms: Alarms::default(),
        });
        if kept.content {
            warn!("telemetry.content is on: the spans that are sent have what is asked and answered");
        }
        telemetry.tell_of_start(damaged);
        let keeper = Keeper::new(Arc::clone(&telemetry), inbox, export);
        Ok(Started { telemetry, keeper })
    }

    /// The daemon started: how the last one ended is in its last event.
    fn tell_of_start(&self, damaged: Option<PathBuf>) {
        if let Some(aside) = damaged {
            let aside = aside.display().to_string();
            error!(aside, "the history was damaged: a new one is begun");
            let words = format!("the history was damaged: it is {aside} now, and a new one is begun");
            self.event(event::HISTORY_LOST, words, fields([("file", aside)]));
        }
        let before = match self.history.last_event() {
            Ok(before) => before,
            Err(error) => {
                warn!(%error, "what the daemon did last cannot be read");
                None
            }
        };
        let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
        match before {
            Some(before) if before.kind != event::STOPPED.name => {
                let same_machine = before.life.is_some_and(|life| life.boot == self.life.boot());
                let (cause, words) = match same_machine {
                    true => ("process", "the daemon had ended without stopping in order"),
                    false => ("machine", "the machine was started again while the daemon ran"),
                };
                let attributes = fields([version, ("cause", cause.to_owned())]);
                self.event(event::RESTARTED, words.to_owned(), attributes);
            }
            _ => self.event(event::STARTED, "the daemon started".to_owned(), fields([version])),
        }
    }

    /// Something happened. Never waits: where more happens than the disk takes, it is left out.
    pub fn event(&self, kind: Kind, message: String, attributes: BTreeMap<String, String>) {
        let event = NodeEvent {
            at: Some(SystemTime::now().into()),
            life: Some(self.life.now()),
            kind: kind.name.to_owned(),
            severity: kind.severity.into(),
            message,
            attributes,
        };
        if self.events.try_send(event).is_err() {
            // Not a warning: that would be an event again.
            debug!(kind = kind.name, "an event is left out of the history: too many at once");
        }
    }

    /// A request ended.
    pub fn request(&self, request: &Request<'_>) {
        self.instruments.request(request);
    }

    /// A call ended, with this status. `method`: `package.Service/Method`.
    pub fn call(&self, method: &str, status: &'static str, took: Duration) {
        self.instruments.call(method, status, took);
    }

    /// A call ended: spans are made of it, where they are sent anywhere.
    pub fn span<'a>(&self, call: impl FnOnce() -> CallSpan<'a>) {
        let Some(spans) = &self.spans else { return };
        let call = call();
        if spans::sampled(call.parent.as_ref(), call.id, self.traces()) {
            spans.call(call);
        }
    }

    /// Hands on the spans that were made. Blocks.
    fn flush_spans(&self) {
        if let Some(spans) = &self.spans {
            spans.flush();
        }
    }

    /// Whether what is asked and answered is put into spans.
    pub fn keeps_content(&self) -> bool {
        self.content && self.spans.is_some()
    }

    /// A model was given up for the one before.
    pub fn rolled_back(&self) {
        self.observed.rolled_back();
    }

    /// Seconds that a record stands for.
    pub fn interval(&self) -> Duration {
        *self.interval.borrow()
    }

    /// Records stand for so long from now on. Gives what it was before.
    pub fn set_interval(&self, interval: Duration) -> Duration {
        self.interval.send_replace(interval)
    }

    /// Of how many requests in a hundred spans are made.
    pub fn traces(&self) -> u64 {
        self.traces.load(Ordering::Relaxed)
    }

    /// Of so many from now on. Gives what it was before.
    pub fn set_traces(&self, percent: u64) -> u64 {
        self.traces.swap(percent, Ordering::Relaxed)
    }

    /// What the hardware complains of now, or we do.
    pub fn alarms(&self) -> Vec<&'static str> {
        let away = self.observed.is_collector_away().then_some(alarm::COLLECTOR_AWAY);
        let in_memory = self.history.is_in_memory().then_some(alarm::HISTORY_IN_MEMORY);
        let own = self.own_alarms().into_iter().map(|(name, _)| name);
        self.observed.hardware_alarms().into_iter().chain(away).chain(in_memory).chain(own).collect()
    }

    /// Raises an alarm of the daemon's own, with what is wrong, or clears it.
    pub fn set_alarm(&self, name: &'static str, words: Option<String>) {
        self.alarms.set(name, words);
    }

    /// The alarms of the daemon's own that are raised, and what is wrong.
    pub fn own_alarms(&self) -> Vec<(&'static str, String)> {
        self.alarms.raised()
    }

    /// From now on the node is one of the things that are read.
    pub fn look_at(&self, node: &Arc<Node>) {
        self.observed.look_at(node);
    }

    /// Another one with each start of the daemon.
    pub fn instance(&self) -> Uuid {
        self.life.instance()
    }

    /// What was.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// What stands at this moment, host and node.
    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// Every metric as it stands, cumulative since the daemon started. Reads files of the system.
    pub fn read(&self) -> Vec<ResourceMetrics> {
        self.observed.refresh();
        self.instruments.read()
    }
}

fn fields<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Where the history is kept; none: in memory.
fn folder(settings: &Settings) -> Option<PathBuf> {
    match (&settings.telemetry.dir, &settings.bundle) {
        (Some(dir), _) => Some(dir.clone()),
        (None, None) => Some(settings.state_dir.join("telemetry")),
        (None, Some(_)) => None,
    }
}

/// What waits for the collector: on the disk, or where that cannot be had, in memory.
fn outbox(folder: Option<&std::path::Path>, most: u64) -> Result<Outbox, HistoryError> {
    let opened = Outbox::open(folder, most).or_else(|error| {
        warn!(%error, "what waits for the collector is kept in memory");
        Outbox::open(None, most)
    });
    Ok(opened?)
}

/// What tells this node from others, wherever its telemetry goes.
fn resource(history: &History, settings: &Settings) -> Resource {
    let own = [
        ("service.name", "recurved".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        // The same after a restart.
        ("service.instance.id", history.store().to_string()),
        ("host.name", life::host_name()),
        ("host.arch", std::env::consts::ARCH.to_owned()),
        ("os.type", std::env::consts::OS.to_owned()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    let given = settings.telemetry.resource.iter().cloned();
    let attributes = own.chain(given).map(|(key, value)| opentelemetry::KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}
