//! A real OpenTelemetry collector, Rotel, with the settings of `deploy/observability/`, and a receiver behind it that keeps
//! what it passes on.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::spawn;

use recurve_telemetry::wire::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use recurve_telemetry::wire::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use recurve_telemetry::wire::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use recurve_telemetry::wire::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use recurve_telemetry::wire::common::v1::{AnyValue, KeyValue, any_value::Value};
use recurve_telemetry::wire::metrics::v1::metric::Data;
use recurve_telemetry::wire::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, number_data_point};
use recurve_telemetry::wire::resource::v1::Resource;
use recurve_telemetry::wire::trace::v1::{ResourceSpans, Span};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::process::until;
use crate::reference::repository;

/// A running collector. Dropped, it ends.
#[derive(Debug)]
pub struct Rotel {
    /// Where it listens, as `telemetry.endpoint` has it.
    pub endpoint: String,
    process: Child,
}

/// What the collector passed on.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    metrics: Vec<ResourceMetrics>,
    spans: Vec<ResourceSpans>,
}

/// The program, where it is; says it where it is not.
pub fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("RECURVE_ROTEL").map(PathBuf::from);
    if named.is_none() {
        println!("skipped: RECURVE_ROTEL names no rotel-agent, as `pip install rotel` brings it");
    }
    named
}

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Rotel {
    /// Starts it at this port, as `rotel.env` has it but for the addresses. What it takes in goes to `received`.
    pub fn start(program: &Path, port: u16, received: &Received) -> Self {
        let next = received.serve();
        let mut command = Command::new(program);
        let process = command
            .arg("start")
            .envs(settings())
            .env("ROTEL_OTLP_GRPC_ENDPOINT", format!("127.0.0.1:{port}"))
            .env("ROTEL_OTLP_HTTP_ENDPOINT", format!("127.0.0.1:{}", free_port()))
            .env("ROTEL_OTLP_EXPORTER_ENDPOINT", format!("http://127.0.0.1:{next}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rotel starts");
        until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { endpoint: format!("http://127.0.0.1:{port}"), process }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The variables of `rotel.env`.
fn settings() -> Vec<(String, String)> {
    let file = repository().join("deploy/observability/rotel.env");
    let text = std::fs::read_to_string(file).expect("the collector's settings");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.map(|line| pair(line).unwrap_or_else(|| panic!("`{line}` is no setting"))).collect()
}

impl Received {
    /// Takes in what comes to a port of its own, until the test's process ends.
    fn serve(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let metrics = MetricsServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
        let traces = TraceServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
        spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).expect("a socket"));
                let server = tonic::transport::Server::builder().add_service(metrics).add_service(traces);
                server.serve_with_incoming(incoming).await.expect("a server");
            });
        });
        port
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("what was received")
    }

    /// What each message says that it is from.
    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        let kept = self.kept();
        let (metrics, spans) = (kept.metrics.iter().map(|of| &of.resource), kept.spans.iter().map(|of| &of.resource));
        let pairs = |resource: &Resource| {
            resource.attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
        };
        metrics.chain(spans).map(|resource| pairs(resource.as_ref().expect("a resource"))).collect()
    }

    /// Every metric of every message, in the order in which they came, with the name of its scope.
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        let scopes = |of: &ResourceMetrics| of.scope_metrics.clone();
        let kept = self.kept();
        let of_scopes = kept.metrics.iter().flat_map(scopes);
        let named = |of: recurve_telemetry::wire::metrics::v1::ScopeMetrics| {
            let name = of.scope.unwrap_or_default().name;
            of.metrics.into_iter().map(move |metric| (name.clone(), metric))
        };
        of_scopes.flat_map(named).collect()
    }

    /// Every span.
    pub fn spans(&self) -> Vec<Span> {
        let kept = self.kept();
        kept.spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| of.spans.clone()).collect()
    }

    /// The points of a metric that is no histogram, by their time.
    pub fn points(&self, name: &str) -> Vec<NumberDataPoint> {
        let mut points: Vec<_> = self
            .metrics()
            .into_iter()
            .filter(|(_, metric)| metric.name == name)
            .flat_map(|(_, metric)| match metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points,
                Some(Data::Sum(sum)) => sum.data_points,
                other => panic!("{name} is {other:?}"),
            })
            .collect();
        points.sort_by_key(|point| point.time_unix_nano);
        points
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.kept().metrics.extend(request.into_inner().resource_metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.kept().spans.extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A point's value.
pub fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => panic!("a point without a value"),
    }
}

/// The text of an attribute, or its number as text; none where there is no such attribute.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    Some(text(found.value.as_ref()))
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|one| text(Some(one))).collect::<Vec<_>>().join(","),
        other => panic!("an attribute is {other:?}"),
    }
}
