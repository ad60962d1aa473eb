//! All metrics for Prometheus, over plain HTTP at an address of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Telemetry;

const PATH: &str = "/metrics";
/// Connections at a time: there are few who read metrics.
const MOST: usize = 16;
/// How long one may last.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a request's headers may take.
const HEADERS: Duration = Duration::from_secs(5);
/// Pause after a failed accept: the system is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens there.
///
/// # Errors
/// The address is taken or not of this machine; in words.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let failed = |error: std::io::Error| format!("telemetry.prometheus: cannot listen on {address}: {error}");
    TcpListener::bind(address).await.map_err(failed)
}

/// Answers for as long as it is run.
pub(crate) async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection of Prometheus");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let telemetry = Arc::clone(&telemetry);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&telemetry)));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(LONGEST, connection).await {
                debug!(%error, "a connection of Prometheus ended");
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, telemetry: Arc<Telemetry>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => match spawn_blocking(move || text(&telemetry)).await {
            Ok(Ok(text)) => (StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Ok(Err(words)) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", words.into_bytes()),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", b"reading the metrics panicked\n".to_vec()),
        },
        (_, PATH) => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"use GET\n".to_vec()),
        _ => (StatusCode::NOT_FOUND, "text/plain", format!("metrics are at {PATH}\n").into_bytes()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}

fn text(telemetry: &Telemetry) -> Result<Vec<u8>, String> {
    telemetry.observed().refresh();
    let mut text = Vec::new();
    let families = telemetry.instruments.prometheus().gather();
    TextEncoder::new()
        .encode(&families, &mut text)
        .map_err(|error| format!("the metrics cannot be written: {error}\n"))?;
    Ok(text)
}
