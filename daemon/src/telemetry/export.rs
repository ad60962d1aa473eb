//! Sends to the collector what the outbox holds, one after the other, for as long as it takes. Nothing else waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use recurve_telemetry::event;
use recurve_telemetry::wire::collector::metrics::v1::ExportMetricsServiceRequest;
use recurve_telemetry::wire::collector::trace::v1::ExportTraceServiceRequest;
use recurve_telemetry::wire::metrics::v1::ResourceMetrics;
use recurve_telemetry::wire::trace::v1::ResourceSpans;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::observed::Observed;
use super::outbox::{Message, Outbox, Signal};
use crate::config::Collector;
use crate::grpc::{CollectorClient, Sent};

/// Between two attempts, at first,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// and at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the daemon's end waits for what can still be sent.
const LAST: Duration = Duration::from_secs(2);
/// How often it is said that telemetry is dropped.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Export {
    outbox: Arc<Outbox>,
    observed: Arc<Observed>,
    /// One for each signal.
    news: [Notify; 2],
}

/// What is dropped is said, but not each time.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    bytes: u64,
}

impl Export {
    pub(super) fn new(outbox: Outbox, observed: Arc<Observed>) -> Self {
        Self { outbox: Arc::new(outbox), observed, news: [Notify::new(), Notify::new()] }
    }

    /// Puts metrics into the outbox. Blocks.
    pub(super) fn metrics(&self, readings: Vec<ResourceMetrics>) {
        let request = ExportMetricsServiceRequest { resource_metrics: readings };
        self.push(Signal::Metrics, &request.encode_to_vec());
    }

    /// Puts spans into the outbox. Blocks.
    fn spans(&self, spans: ResourceSpans) {
        let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
        self.push(Signal::Traces, &request.encode_to_vec());
    }

    fn push(&self, signal: Signal, bytes: &[u8]) {
        match self.outbox.push(signal, bytes) {
            Ok(0) => {}
            Ok(dropped) => self.observed.dropped("full", dropped),
            Err(error) => {
                self.observed.dropped("failed", bytes.len() as u64);
                warn!(%error, "what is to be sent to the collector cannot be kept");
            }
        }
        self.observed.waiting(self.outbox.held());
        self.news[signal as usize].notify_one();
    }

    /// Puts spans into the outbox as they come, until there are no more to come, and then those that came.
    pub(super) async fn take_spans(self: Arc<Self>, mut inbox: mpsc::Receiver<ResourceSpans>, last: CancellationToken) {
        while let Some(Some(spans)) = last.run_until_cancelled(inbox.recv()).await {
            self.keep_spans(spans).await;
        }
        while let Ok(spans) = inbox.try_recv() {
            self.keep_spans(spans).await;
        }
    }

    async fn keep_spans(self: &Arc<Self>, spans: ResourceSpans) {
        let export = Arc::clone(self);
        if spawn_blocking(move || export.spans(spans)).await.is_err() {
            error!("keeping spans panicked");
        }
    }

    /// Sends until the daemon has stopped, and then for a moment what is left. Each signal has a sender of its own.
    pub(super) async fn send(self: Arc<Self>, collector: Collector, stopped: CancellationToken) {
        let senders = Signal::ALL.map(|signal| {
            let (export, collector, stopped) = (Arc::clone(&self), collector.clone(), stopped.clone());
            async move {
                let client = CollectorClient::new(&collector);
                let mut sender =
                    Sender { signal, export, client, away: None, full: Said::default(), refused: Said::default() };
                stopped.run_until_cancelled(sender.run()).await;
                // What is not sent now is on the disk.
                let _ = timeout(LAST, sender.all()).await;
            }
        });
        futures_util::future::join_all(senders).await;
    }
}

struct Sender {
    signal: Signal,
    export: Arc<Export>,
    client: CollectorClient,
    /// Since when the collector takes nothing, and how long it is waited now.
    away: Option<(Instant, Duration)>,
    full: Said,
    refused: Said,
}

impl Said {
    /// Whether it is to be said that so many bytes were dropped in all; then how many since it was said last.
    fn now(&mut self, bytes: u64) -> Option<u64> {
        let new = bytes.saturating_sub(self.bytes);
        let due = new > 0 && self.at.is_none_or(|at| at.elapsed() > SAY_AGAIN);
        due.then(|| {
            *self = Self { at: Some(Instant::now()), bytes };
            new
        })
    }
}

impl Sender {
    async fn run(&mut self) {
        loop {
            self.all().await;
            match self.away {
                Some((_, pause)) => tokio::time::sleep(pause).await,
                None => self.export.news[self.signal as usize].notified().await,
            }
        }
    }

    /// Sends what there is, until the collector takes no more.
    async fn all(&mut self) {
        loop {
            self.say_what_is_dropped();
            let (export, signal) = (Arc::clone(&self.export), self.signal);
            let message = match spawn_blocking(move || export.outbox.first(signal)).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return self.is_back(),
                Ok(Err(error)) => return self.is_away(&format!("its outbox cannot be read: {error}")),
                Err(_) => return,
            };
            match self.client.send(&message).await {
                Sent::Taken { rejected: None } => {}
                Sent::Taken { rejected: Some(words) } => self.refused(message.bytes.len(), &words),
                Sent::Refused(words) => self.refused(message.bytes.len(), &words),
                Sent::Away(words) => return self.is_away(&words),
            }
            if !self.remove(message).await {
                return self.is_away("what it has cannot be removed from its outbox");
            }
        }
    }

    async fn remove(&self, message: Message) -> bool {
        let export = Arc::clone(&self.export);
        let removed = spawn_blocking(move || {
            let removed = export.outbox.remove(&message);
            export.observed.waiting(export.outbox.held());
            removed
        });
        match removed.await {
            Ok(Ok(())) => true,
            // It may be sent twice, which a collector bears: the times are the same.
            Ok(Err(error)) => {
                warn!(%error, "what was sent to the collector cannot be removed from the disk");
                false
            }
            Err(_) => false,
        }
    }

    fn is_away(&mut self, words: &str) {
        let pause = self.away.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        let since = self.away.map_or_else(Instant::now, |(since, _)| since);
        self.away = Some((since, pause));
        if self.export.observed.collector_is_away(self.signal) {
            let (endpoint, signal) = (self.client.endpoint(), self.signal.name());
            warn!(
                event = event::COLLECTOR_AWAY.name,
                endpoint,
                signal,
                reason = words,
                "the collector takes nothing: what is for it waits on the disk"
            );
        }
    }

    fn is_back(&mut self) {
        if let Some((since, _)) = self.away.take()
            && self.export.observed.collector_is_back(self.signal)
        {
            let seconds = since.elapsed().as_secs();
            info!(event = event::COLLECTOR_BACK.name, seconds, "the collector has all that waited for it");
        }
    }

    /// The collector will never take it, or took only a part of it.
    fn refused(&mut self, bytes: usize, words: &str) {
        self.export.observed.dropped("refused", bytes as u64);
        let all = self.export.observed.dropped_because("refused");
        if let Some(bytes) = self.refused.now(all) {
            let signal = self.signal.name();
            warn!(
                event = event::DROPPED.name,
                signal,
                bytes,
                reason = words,
                "the collector refuses what is sent: it is dropped"
            );
        }
    }

    fn say_what_is_dropped(&mut self) {
        let all = self.export.observed.dropped_because("full");
        if let Some(bytes) = self.full.now(all).filter(|_| self.signal == Signal::Metrics) {
            warn!(
                event = event::DROPPED.name,
                bytes, "the collector is away for so long that the oldest of what waits for it is dropped"
            );
        }
    }
}
