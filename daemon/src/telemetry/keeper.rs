//! Reads everything in turn, and gives it to the history and to whom it is exported.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{NodeEvent, Sample};
use recurve_telemetry::builder::Builder;
use recurve_telemetry::event;
use recurve_telemetry::wire::trace::v1::ResourceSpans;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use super::export::Export;
use super::history::HistoryError;
use super::{Telemetry, life};
use crate::config::Collector;

/// How often gauges are read: their least and greatest value in a record are of these.
const READ: Duration = Duration::from_secs(10);
/// How much earlier than its time an export may be: readings come in turn.
const SLACK: Duration = Duration::from_millis(200);
/// How often old records are put together.
const COMPACT: Duration = Duration::from_secs(15 * 60);
/// Records that are held while the disk does not take them.
const MOST_PENDING: usize = 1024;
/// By how much the wall clock may go wrong unnoticed.
const JUMP: f64 = 1.0;

/// What goes to a collector, and how.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) export: Arc<Export>,
    pub(super) collector: Collector,
    pub(super) spans: mpsc::Receiver<ResourceSpans>,
}

/// Looks after telemetry as long as the daemon runs.
#[derive(Debug)]
pub struct Keeper {
    telemetry: Arc<Telemetry>,
    inbox: mpsc::Receiver<NodeEvent>,
    sending: Option<Sending>,
    export: Option<Arc<Export>>,
    /// Between two exports; none: with each record.
    export_every: Option<Duration>,
    exported: Instant,
    builder: Arc<Mutex<Builder>>,
    begun: (SystemTime, Duration),
    /// What the disk did not take yet.
    pending: Arc<Mutex<VecDeque<Content>>>,
    /// The disk refuses, and it was said.
    told: bool,
    alarms: Vec<&'static str>,
}

impl Keeper {
    pub(super) fn new(telemetry: Arc<Telemetry>, inbox: mpsc::Receiver<NodeEvent>, sending: Option<Sending>) -> Self {
        Self {
            telemetry,
            inbox,
            export: sending.as_ref().map(|sending| Arc::clone(&sending.export)),
            export_every: sending.as_ref().and_then(|sending| sending.collector.every),
            exported: Instant::now(),
            sending,
            builder: Arc::default(),
            begun: (SystemTime::now(), life::since_boot()),
            pending: Arc::default(),
            told: false,
            alarms: Vec::new(),
        }
    }

    /// Runs until the daemon has stopped; then the last of it is written, and the history closed.
    pub async fn run(mut self, stopped: CancellationToken) {
        let (made, sent) = (CancellationToken::new(), CancellationToken::new());
        let sending = self.sending.take().map(|Sending { export, collector, spans }| {
            let spans = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&export).take_spans(spans, made.clone())));
            (spans, AbortOnDropHandle::new(tokio::spawn(export.send(collector, sent.clone()))))
        });
        let mut interval = self.telemetry.interval.subscribe();
        let every = *interval.borrow_and_update();
        let (mut reads, mut records, mut compactions) = (ticks(self.reads(every)), ticks(every), ticks(COMPACT));
        // The first tick of each comes at once.
        records.tick().await;
        loop {
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                Some(event) = self.inbox.recv() => self.keep(Content::Event(event)).await,
                _ = records.tick() => {
                    self.read(self.export_every.is_none()).await;
                    self.record().await;
                }
                _ = reads.tick() => {
                    let due = self.export_every.is_some_and(|every| self.exported.elapsed() + SLACK >= every);
                    self.read(due).await;
                },
                Ok(()) = interval.changed() => {
                    let every = *interval.borrow_and_update();
                    (reads, records) = (ticks(self.reads(every)), ticks(every));
                }
                _ = compactions.tick() => self.compact().await,
            }
        }
        self.read(true).await;
        self.record().await;
        self.telemetry.event(event::STOPPED, "the daemon stopped".to_owned(), BTreeMap::new());
        while let Ok(event) = self.inbox.try_recv() {
            self.keep(Content::Event(event)).await;
        }
        let history = Arc::clone(self.telemetry.history());
        if let Ok(Err(error)) = spawn_blocking(move || history.close()).await {
            warn!(%error, "the history cannot be closed in order");
        }
        // First all spans are on the disk, then what can still be sent is.
        if let Some((spans, sending)) = sending {
            let telemetry = Arc::clone(&self.telemetry);
            let _ = spawn_blocking(move || telemetry.flush_spans()).await;
            made.cancel();
            let _ = spans.await;
            sent.cancel();
            let _ = sending.await;
        }
    }

    /// How often everything is read where a record stands for so long.
    fn reads(&self, record: Duration) -> Duration {
        READ.min(record).min(self.export_every.unwrap_or(READ))
    }

    /// Reads everything: gauges have been through these values. `send`: the collector is given them.
    async fn read(&mut self, send: bool) {
        let (telemetry, export) = (Arc::clone(&self.telemetry), self.export.clone().filter(|_| send));
        if send {
            self.exported = Instant::now();
        }
        let builder = Arc::clone(&self.builder);
        let read = spawn_blocking(move || {
            let readings = telemetry.read();
            locked(&builder).observe(&readings);
            if let Some(export) = export {
                export.metrics(readings);
            }
        });
        if read.await.is_err() {
            error!("reading the metrics panicked: a record may lack them");
        }
        self.tell_of_alarms();
    }

    fn tell_of_alarms(&mut self) {
        let now = self.telemetry.observed().hardware_alarms();
        for alarm in now.iter().filter(|alarm| !self.alarms.contains(alarm)) {
            warn!(event = event::HW_ALARM.name, alarm, "the hardware complains");
        }
        for alarm in self.alarms.iter().filter(|alarm| !now.contains(alarm)) {
            info!(event = event::HW_CLEARED.name, alarm, "the hardware no longer complains");
        }
        self.alarms = now;
    }

    /// The sample ends here, and the next one begins.
    async fn record(&mut self) {
        let (now, since_boot) = (SystemTime::now(), life::since_boot());
        let (begun, began) = std::mem::replace(&mut self.begun, (now, since_boot));
        let length = since_boot.saturating_sub(began);
        Self::tell_of_jump(begun, now, length);
        let sample = Sample {
            // By the clock as it is now, so that samples follow one another where it was set in between.
            begin: now.checked_sub(length).map(Into::into),
            length: length.try_into().ok(),
            life: Some(self.telemetry.life.now()),
            series: locked(&self.builder).finish(),
        };
        self.settle().await;
        self.keep(Content::Sample(sample)).await;
    }

    /// A history that could not be kept on the disk goes there as soon as it can.
    async fn settle(&self) {
        let history = Arc::clone(self.telemetry.history());
        let settled = spawn_blocking(move || {
            history.look();
            if history.is_homeless() { history.settle() } else { Ok(false) }
        });
        match settled.await {
            Ok(Ok(true)) => info!("the history is kept on the disk now"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => debug!(%error, "the history is still in memory"),
        }
    }

    fn tell_of_jump(begun: SystemTime, now: SystemTime, length: Duration) {
        let passed = match now.duration_since(begun) {
            Ok(passed) => passed.as_secs_f64(),
            Err(back) => -back.duration().as_secs_f64(),
        };
        let jump = passed - length.as_secs_f64();
        if jump.abs() > JUMP {
            let seconds = format!("{jump:.1}");
            info!(event = event::CLOCK_SET.name, seconds, "the clock was set");
        }
    }

    /// Puts it into the history, with what was refused before.
    async fn keep(&mut self, content: Content) {
        let (history, pending) = (Arc::clone(self.telemetry.history()), Arc::clone(&self.pending));
        let written = spawn_blocking(move || {
            let mut pending = locked(&pending);
            pending.push_back(content);
            if pending.len() > MOST_PENDING {
                pending.pop_front();
                warn!("a record of the history is lost: the disk has refused records for long");
            }
            while let Some(content) = pending.front() {
                history.append(content)?;
                pending.pop_front();
            }
            Ok::<(), HistoryError>(())
        });
        match written.await {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.told) {
                    info!("the history is written again");
                }
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut self.told, true) {
                    error!(%error, "the history cannot be written: records are held in memory until it can");
                }
            }
            Err(_) => error!("writing the history panicked: it is tried again with the next record"),
        }
    }

    async fn compact(&self) {
        let history = Arc::clone(self.telemetry.history());
        if let Ok(Err(error)) = spawn_blocking(move || history.compact()).await {
            warn!(%error, "old records of the history cannot be put together");
        }
    }
}

/// What is in it, whatever happened to another holder: every change is whole.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
