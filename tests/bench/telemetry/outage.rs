//! Serving while the collector takes what is sent and while it is away, in turn.

use std::net::TcpListener;

use recurve_telemetry::wire::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use recurve_telemetry::wire::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use recurve_telemetry::wire::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use recurve_telemetry::wire::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use recurve_tests::client::{begin, connect, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// A collector that takes everything.
#[derive(Debug, Clone, Copy)]
struct Sink;

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Two daemons that export once a second: one to a collector, one to where nothing listens.
pub(super) fn measure(bench: &Bench, subject: &Subject) -> Result<Table, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let there = format!("http://{}", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).ok()?;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server =
            Server::builder().add_service(MetricsServiceServer::new(Sink)).add_service(TraceServiceServer::new(Sink));
        server.serve_with_incoming(incoming).await.ok()
    });
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let start = |endpoint: &str, dir: &tempfile::TempDir| {
        Setup::new(subject.bundle.dir())
            .set("engine.threads", bench.threads)
            .set("telemetry.dir", dir.path().display())
            .set("telemetry.interval", 1)
            .set("telemetry.endpoint", endpoint)
            .allow("the collector takes nothing")
            .start()
    };
    let daemons = [start(&there, &dirs[0]), start("http://127.0.0.1:9", &dirs[1])];
    let [mut taken, mut away] = <[Samples; 2]>::default();
    for pair in 0..=bench.effort.pairs * 2 {
        let first = pair % 2;
        let mut speeds = [0.0; 2];
        for which in [first, 1 - first] {
            speeds[which] = speed(&runtime, &daemons[which], bench.effort.tokens * 16)?;
        }
        // The first pair warms both up.
        if pair > 0 {
            taken.push(speeds[0]);
            away.push(speeds[1]);
        }
    }
    let mut table = Table::new("one stream while the collector takes what is sent, and while it is away")
        .note("Two daemons, in turn; both export metrics once a second and the spans of every request.");
    table.push(
        Line::new().figure("taken", Unit::TokensPerSecond, &taken).figure("away", Unit::TokensPerSecond, &away).figure(
            "away, of taken",
            Unit::Percent,
            &away.pair(&taken, |away, taken| 100.0 * away / taken),
        ),
    );
    Ok(table)
}

/// Tokens a second of one answer, its prompt included.
fn speed(runtime: &Runtime, daemon: &Daemon, tokens: u32) -> Result<f64, Failure> {
    runtime.block_on(async {
        let client = connect(daemon).await;
        let begun = std::time::Instant::now();
        let answer = begin(&client, greedy(&[2, 10], tokens)).await?.rest().await?;
        Ok(answer.tokens.len() as f64 / begun.elapsed().as_secs_f64())
    })
}
