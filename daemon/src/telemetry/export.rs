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
    news: Arc<Notify>,
}

/// What is dropped is said, but not each time.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    bytes: u64,
}

impl Export {
    pub(super) fn new(outbox: Outbox, observed: Arc<Observed>) -> Self {
        Self { outbox: Arc::new(outbox), observed, news: Arc::new(Notify::new()) }
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
        self.observed.waiting(self.outbox.held().unwrap_or_default());
        self.news.notify_one();
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

    /// Sends until the daemon has stopped, and then for a moment what is left.
    pub(super) async fn send(self: Arc<Self>, collector: Collector, stopped: CancellationToken) {
        let mut sender =
            Sender { export: self, client: CollectorClient::new(&collector), away: None, said: Said::default() };
        stopped.run_until_cancelled(sender.run()).await;
        // What is not sent now is on the disk.
        let _ = timeout(LAST, sender.all()).await;
    }
}

struct Sender {
    export: Arc<Export>,
    client: CollectorClient,
    /// Since when the collector takes nothing, and how long it is waited now.
    away: Option<(Instant, Duration)>,
    said: Said,
}

impl Sender {
    async fn run(&mut self) {
        loop {
            self.all().await;
            match self.away {
                Some((_, pause)) => tokio::time::sleep(pause).await,
                None => self.export.news.notified().await,
            }
        }
    }

    /// Sends what there is, until the collector takes no more.
    async fn all(&mut self) {
        loop {
            self.say_what_is_dropped();
            let outbox = Arc::clone(&self.export.outbox);
            let message = match spawn_blocking(move || outbox.first()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return self.is_back(),
                Ok(Err(error)) => {
                    warn!(%error, "what waits for the collector cannot be read");
                    return self.is_away("its outbox cannot be read");
                }
                Err(_) => return,
            };
            match self.client.send(&message).await {
                Sent::Taken { rejected: None } => {}
                Sent::Taken { rejected: Some(words) } => warn!(%words, "the collector took only a part"),
                Sent::Refused(words) => {
                    self.export.observed.dropped("refused", message.bytes.len() as u64);
                    warn!(
                        event = event::DROPPED.name,
                        reason = words,
                        "the collector refuses what is sent: it is dropped"
                    );
                }
                Sent::Away(words) => return self.is_away(&words),
            }
            if !self.remove(message).await {
                return;
            }
        }
    }

    async fn remove(&self, message: Message) -> bool {
        let export = Arc::clone(&self.export);
        let removed = spawn_blocking(move || {
            let removed = export.outbox.remove(message.number);
            export.observed.waiting(export.outbox.held().unwrap_or_default());
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
        let pause = match self.away {
            Some((_, pause)) => (pause * 2).min(LONGEST_PAUSE),
            None => {
                let endpoint = self.client.endpoint();
                warn!(
                    event = event::COLLECTOR_AWAY.name,
                    endpoint,
                    reason = words,
                    "the collector takes nothing: what is for it waits on the disk"
                );
                FIRST_PAUSE
            }
        };
        let since = self.away.map_or_else(Instant::now, |(since, _)| since);
        self.away = Some((since, pause));
        self.export.observed.collector_away(true);
    }

    fn is_back(&mut self) {
        if let Some((since, _)) = self.away.take() {
            let seconds = since.elapsed().as_secs();
            info!(event = event::COLLECTOR_BACK.name, seconds, "the collector has all that waited for it");
            self.export.observed.collector_away(false);
        }
    }

    fn say_what_is_dropped(&mut self) {
        let dropped = self.export.observed.dropped_because("full");
        if dropped > self.said.bytes && self.said.at.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            let bytes = dropped - self.said.bytes;
            warn!(
                event = event::DROPPED.name,
                bytes, "the collector is away for so long that the oldest of what waits for it is dropped"
            );
            self.said = Said { at: Some(Instant::now()), bytes: dropped };
        }
    }
}
