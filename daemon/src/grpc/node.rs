//! `recurve.v1.Node`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{Stream, StreamExt as _, iter, unfold};
use recurve_proto::v1;
use recurve_proto::v1::node_server::{Node as Api, NodeServer};
use recurve_telemetry::catalogue::METRICS;
use recurve_telemetry::event;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use tracing::{debug, info};
use uuid::Uuid;

use super::access::{self, Right};
use super::call;
use super::peer::{self, Peer};
use super::status::CallError;
use super::tls::Tls;
use super::{describe, live};
use crate::config::Settings;
use crate::doctor;
use crate::node::{Node, Phase};
use crate::operate::Operations;
use crate::store::Store;

/// Records and lines in one message.
const BATCH: usize = 256;
/// How often it is looked how many requests are left.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// The shortest time between two messages of one who watches.
const LEAST_EVERY: Duration = Duration::from_millis(100);

/// The service for the routes. `store`: where the node keeps its models, if it does.
pub(super) fn service(node: &Arc<Node>, store: Option<Arc<Store>>, operations: Operations) -> NodeServer<Service> {
    NodeServer::new(Service { node: Arc::clone(node), store, operations })
}

/// Answers operators.
#[derive(Debug)]
pub(super) struct Service {
    node: Arc<Node>,
    store: Option<Arc<Store>>,
    operations: Operations,
}

/// A call that is allowed.
struct Call {
    method: &'static str,
    id: Uuid,
    who: String,
}

impl Service {
    fn begin<T>(&self, method: &'static str, request: &Request<T>) -> Result<Call, Status> {
        let id = Uuid::now_v7();
        let extensions = request.extensions();
        let who = peer::client(extensions).0.to_string();
        access::check(extensions.get::<Peer>(), Right::Operate).map_err(|error| error.status(id))?;
        // Who looks is answered to the end.
        if matches!(method, "Configure" | "Drain") {
            call::unless_stopping(&self.node).map_err(|error| error.status(id))?;
        }
        debug!(method, request = %id, client = who, "operation");
        Ok(Call { method, id, who })
    }
}

impl Call {
    /// Says that the node is changed by it.
    fn changes(&self) {
        info!(method = self.method, request = %self.id, client = self.who, outcome = "done", "operation");
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Api for Service {
    type TelemetryStream = Answers<v1::TelemetryResponse>;
    type WatchStream = Answers<v1::WatchNodeResponse>;
    type LogsStream = Answers<v1::LogsResponse>;
    type AuditStream = Answers<v1::AuditResponse>;
    type DrainStream = Answers<v1::DrainResponse>;

    async fn describe(
        &self,
        request: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        self.begin("Describe", &request)?;
        Ok(Response::new(describe::of(&self.node, &self.operations)))
    }

    async fn telemetry(
        &self,
        request: Request<v1::TelemetryRequest>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        let call = self.begin("Telemetry", &request)?;
        let request = request.into_inner();
        let since = match request.since.map(SystemTime::try_from).transpose() {
            Ok(since) => since,
            Err(error) => {
                let error = CallError::Field { field: "since", words: format!("is no time: {error}") };
                return Err(error.status(call.id));
            }
        };
        let history = Arc::clone(self.node.telemetry().history());
        let after = if request.store == history.store().to_string() { request.after } else { 0 };
        let first = v1::TelemetryResponse {
            store: history.store().to_string(),
            metrics: METRICS.iter().map(|metric| metric.description()).collect(),
            records: Vec::new(),
        };
        let metrics: Arc<[String]> = request.metrics.into();
        let records = unfold(Some((history, after)), move |state| {
            let metrics = Arc::clone(&metrics);
            async move {
                let (history, after) = state?;
                let reading = Arc::clone(&history);
                match spawn_blocking(move || reading.read(after, since, &metrics, BATCH)).await {
                    Ok(Ok(Some((records, last)))) => {
                        let message = v1::TelemetryResponse { records, ..v1::TelemetryResponse::default() };
                        Some((Ok(message), Some((history, last))))
                    }
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => Some((Err(CallError::History(error.to_string()).status(Uuid::now_v7())), None)),
                    Err(_) => Some((Err(CallError::Abandoned.status(Uuid::now_v7())), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(iter([Ok(first)]).chain(records))))
    }

    async fn watch(&self, request: Request<v1::WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = self.begin("Watch", &request)?;
        let every = match request.into_inner().every {
            None => Duration::from_secs(1),
            Some(wire) => match Duration::try_from(wire).ok().filter(|every| *every >= LEAST_EVERY) {
                Some(every) => every,
                None => {
                    let words =
                        format!("is {} s and {} ns: must be at least a tenth of a second", wire.seconds, wire.nanos);
                    return Err(CallError::Field { field: "every", words }.status(call.id));
                }
            },
        };
        let stream = unfold((Arc::clone(&self.node), true), move |(node, first)| async move {
            if !first {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = node.stopping() => return None,
                }
            }
            if matches!(node.phase(), Phase::Stopping) {
                return None;
            }
            let reading = Arc::clone(&node);
            let now = spawn_blocking(move || live::of(&reading)).await.ok()?;
            Some((Ok(now), (node, false)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let call = self.begin("Logs", &request)?;
        let request = request.into_inner();
        if v1::LogLevel::try_from(request.level).is_err() {
            let words = format!("is {}: must be from 0 (all) to {} (trace)", request.level, v1::LogLevel::Trace as i32);
            return Err(CallError::Field { field: "level", words }.status(call.id));
        }
        let lines = super::lines::of(Arc::clone(&self.node), self.operations.log.clone(), request);
        Ok(Response::new(Box::pin(lines)))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<Self::AuditStream>, Status> {
        let call = self.begin("Audit", &request)?;
        let Some(store) = self.store.clone() else { return Err(CallError::NotManaged.status(call.id)) };
        let after = request.into_inner().after;
        let lines = match spawn_blocking(move || store.audit_after(after)).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(error)) => return Err(CallError::Store(error).status(call.id)),
            Err(_) => return Err(CallError::Abandoned.status(call.id)),
        };
        let line = |line: crate::store::AuditLine| v1::AuditLine {
            number: line.number,
            at: line.at,
            who: line.who,
            what: line.what,
            bundle: line.bundle.map(|bundle| bundle.to_string()).unwrap_or_default(),
            result: line.result,
        };
        let mut lines = lines.into_iter().map(line).peekable();
        let mut batches = Vec::new();
        while lines.peek().is_some() {
            batches.push(Ok(v1::AuditResponse { lines: lines.by_ref().take(BATCH).collect() }));
        }
        Ok(Response::new(Box::pin(iter(batches))))
    }

    async fn configure(
        &self,
        request: Request<v1::ConfigureRequest>,
    ) -> Result<Response<v1::ConfigureResponse>, Status> {
        let call = self.begin("Configure", &request)?;
        let changed = self
            .operations
            .configure(&request.into_inner().settings)
            .map_err(|wrong| CallError::Settings(wrong).status(call.id))?;
        call.changes();
        for change in &changed {
            info!(
                event = event::CONFIGURED.name,
                key = change.key,
                value = change.after,
                by = call.who,
                "a setting was changed"
            );
        }
        let changed = changed.into_iter().map(|change| v1::ChangedSetting {
            key: change.key,
            before: change.before,
            after: change.after,
        });
        Ok(Response::new(v1::ConfigureResponse { changed: changed.collect() }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        let call = self.begin("Drain", &request)?;
        let draining = !request.into_inner().resume;
        if self.node.is_draining() != draining {
            self.node.drain(draining);
            match draining {
                true => info!(event = event::DRAINED.name, by = call.who, "no new requests are taken"),
                false => info!(event = event::RESUMED.name, by = call.who, "requests are taken again"),
            }
        }
        call.changes();
        let stream = unfold(Some(Arc::clone(&self.node)), |node| async move {
            let node = node?;
            let now = live::drain(&node);
            let over = !now.draining || (now.waiting == 0 && now.active == 0);
            if !over {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            Some((Ok(now), (!over).then_some(node)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let call = self.begin("Check", &request)?;
        let mut settings = Settings::clone(&self.operations.settings);
        // Those that a reload named.
        settings.tls = self.operations.tls.as_ref().map(Tls::files);
        let serving = doctor::Serving {
            listen: self.operations.listen.clone(),
            onnxruntime: self.node.onnxruntime().map(ToOwned::to_owned),
            model: matches!(self.node.phase(), Phase::Serving(_)),
            alarms: self.node.telemetry().own_alarms(),
        };
        let findings = spawn_blocking(move || doctor::examine(&settings, Some(&serving), &[])).await;
        let findings = findings.map_err(|_| CallError::Abandoned.status(call.id))?;
        Ok(Response::new(v1::CheckResponse { findings: findings.into_iter().map(finding).collect() }))
    }
}

/// What was found, for the wire.
fn finding(finding: doctor::Finding) -> v1::Finding {
    let verdict = match finding.verdict {
        doctor::Verdict::Ok => v1::Verdict::Ok,
        doctor::Verdict::Skipped => v1::Verdict::Skipped,
        doctor::Verdict::Note => v1::Verdict::Note,
        doctor::Verdict::Warning => v1::Verdict::Warning,
        doctor::Verdict::Problem => v1::Verdict::Problem,
    };
    v1::Finding {
        check: finding.check.to_owned(),
        verdict: verdict.into(),
        found: finding.found,
        advice: finding.advice,
    }
}

/// Named numbers for the wire.
pub(super) fn numbers<const N: usize>(pairs: [(&str, usize); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value as u64)).collect()
}
