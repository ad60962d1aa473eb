//! Accepts connections and serves HTTP/2 on them.
//!
//! tonic's own server is not used: it has no cap on connections, and it ends a call at the caller's deadline with
//! CANCELLED, before ours could answer DEADLINE_EXCEEDED.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, join, split};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use super::listener::{Listener, Stream};
use super::measured::{Measure, Methods};
use super::peer::{Here, Peer};
use super::resets::Watched;
use super::seldom::Seldom;
use super::tls::{Encrypted, Tls};
use super::{handshake, health, inference, models, protocol, trust};
use crate::config::Limits;
use crate::deployment::Models;
use crate::node::{Node, Phase};
use crate::operate::Operations;
use crate::telemetry::Telemetry;

/// A connection that is silent this long is asked for a sign of life,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// and closed when none comes within this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What an HTTP/2 client sends first (RFC 9113, section 3.4),
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// and how long a new connection has for all of it. Afterwards the signs of life tell.
const PREFACE_TIME: Duration = Duration::from_secs(10);
/// Calls open at the same time on one connection.
const STREAMS_PER_CONNECTION: u32 = 256;
/// Most bytes of a request's headers.
const HEADER_BYTES: u32 = 16 * 1024;
/// Bytes of one stream that may be under way and unread.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes of all streams of a connection: while one blob is written down, the next comes.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Largest frame: models come in pieces of 256 KiB, and each frame costs.
const FRAME: u32 = 64 << 10;
/// Pause after a failed accept: the system is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is logged that there are too many connections,
const FULL_WARNING: Duration = Duration::from_secs(10);
/// that calls over a Unix socket are refused as malformed,
const MALFORMED_WARNING: Duration = Duration::from_secs(60);
/// and that clients speak TLS where it is not used.
const TLS_NOTE: Duration = Duration::from_secs(10);
/// How long a connection may still begin, and make its first call, when the node stops; longer while others are answered.
const LAST_BEGINNINGS: Duration = Duration::from_millis(250);
/// Time for the last bytes of a finished answer to leave.
const LAST_BYTES: Duration = Duration::from_millis(500);
/// Most bytes that are read of a connection that is refused, so that it hears why.
const LAST_READ: u64 = 64 << 10;

/// Serves a node on its listeners.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    health: HealthReporter,
    tasks: TaskTracker,
    stages: Stages,
    /// Connections that have made no call yet.
    beginnings: TaskTracker,
    /// When it began to drain.
    drained: OnceLock<Instant>,
}

/// A connection that has made no call yet.
#[derive(Debug)]
struct Beginning {
    called: CancellationToken,
    counted: Mutex<Option<TaskTrackerToken>>,
}

/// How far its end has come.
#[derive(Debug, Clone, Default)]
struct Stages {
    /// No new connections; those that are open may finish their calls.
    drain: CancellationToken,
    /// Nor first calls.
    last_call: CancellationToken,
    /// Everything ends.
    end: CancellationToken,
}

/// What all connections share.
struct Shared {
    routes: Routes,
    methods: Methods,
    telemetry: Arc<Telemetry>,
    tls: Option<Tls>,
    places: Places,
    tasks: TaskTracker,
    stages: Stages,
    beginnings: TaskTracker,
    malformed: Seldom,
    unexpected_tls: Seldom,
}

/// Room for connections. Each kind has its own, so that none can take another's.
struct Places {
    tcp: Arc<Semaphore>,
    /// Processes of this machine: they are let in however many others there are.
    unix: Arc<Semaphore>,
    /// Those that have not shown a certificate yet.
    strangers: Arc<Semaphore>,
    full: Seldom,
}

impl Server {
    /// Starts to accept connections. Needs a tokio runtime. `models`: those that the node keeps, if it does. With
    /// TLS, TCP connections are encrypted, and both ends show certificates.
    ///
    /// # Errors
    /// The descriptors for reflection are damaged.
    pub async fn start(
        node: &Arc<Node>,
        listeners: Vec<Listener>,
        limits: &Limits,
        models: Option<Models>,
        operations: Operations,
    ) -> io::Result<Self> {
        let mut routes = Routes::builder();
        let tls = operations.tls.clone();
        routes.add_service(inference::service(node, limits));
        routes.add_service(trust::service(node, models.as_ref()));
        let store = models.as_ref().map(|models| Arc::clone(&models.store));
        routes.add_service(super::node::service(node, store, operations));
        routes.add_service(models::service(node, models));
        let server = Self {
            node: Arc::clone(node),
            health: health::add(&mut routes, node).await,
            tasks: TaskTracker::new(),
            stages: Stages::default(),
            beginnings: TaskTracker::new(),
            drained: OnceLock::new(),
        };
        health::add_reflection(&mut routes).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            routes: routes.routes().prepare(),
            methods: Methods::of(&[recurve_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET]),
            telemetry: Arc::clone(node.telemetry()),
            tls,
            places: Places::new(limits.connections),
            tasks: server.tasks.clone(),
            stages: server.stages.clone(),
            beginnings: server.beginnings.clone(),
            malformed: Seldom::new(MALFORMED_WARNING),
            unexpected_tls: Seldom::new(TLS_NOTE),
        });
        for listener in listeners {
            let shared = Arc::clone(&shared);
            server.tasks.spawn(async move {
                shared.stages.drain.run_until_cancelled(accept(&listener, &shared)).await;
            });
        }
        server.tasks.spawn(follow_drain(Arc::clone(node), server.health.clone(), server.stages.drain.clone()));
        server.tasks.close();
        Ok(server)
    }

    /// The node moves on to another phase; when this returns, its health says so.
    pub async fn enter(&self, phase: Phase) {
        self.node.enter(phase);
        health::tell(&self.health, &self.node).await;
    }

    /// Takes no new connections, and tells the clients of open ones to go elsewhere with their next call. Who has connected and
    /// not asked yet is let ask, to be answered in the protocol's words instead of being cut off.
    pub fn drain(&self) {
        self.drained.get_or_init(Instant::now);
        self.stages.drain.cancel();
    }

    /// Waits until every call is answered, but at most `grace`; then closes what is left.
    pub async fn finish(self, grace: Duration) {
        self.drain();
        if timeout(grace, self.node.idle()).await.is_err() {
            warn!("clients did not take the end of their answers in time");
        }
        let last_call = *self.drained.get_or_init(Instant::now) + LAST_BEGINNINGS;
        self.beginnings.close();
        let _ = timeout_at(last_call, self.beginnings.wait()).await;
        self.stages.last_call.cancel();
        // What watches health never ends by itself; an answer's last bytes may still be on their way.
        let _ = timeout(LAST_BYTES, self.tasks.wait()).await;
        self.stages.end.cancel();
        self.tasks.wait().await;
    }
}

/// The node's health says at once when it is drained.
async fn follow_drain(node: Arc<Node>, health: HealthReporter, ended: CancellationToken) {
    let mut drains = node.drains();
    let follow = async {
        while drains.changed().await.is_ok() {
            health::tell(&health, &node).await;
        }
    };
    ended.run_until_cancelled(follow).await;
}

async fn accept(listener: &Listener, shared: &Arc<Shared>) {
    let here = Here::at(listener.local());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The other end may be gone already; anything else needs time to pass.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    warn!(listen = %listener.local(), %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Ok(place) = shared.places.of(&stream, shared.tls.is_some()) else {
            shared.places.tell_of(&peer);
            continue;
        };
        let (shared, here) = (Arc::clone(shared), here.clone());
        let beginning = Beginning::counted(&shared.beginnings);
        shared.tasks.clone().spawn(async move {
            match (stream, peer) {
                (Stream::Tcp(stream), Peer::Tcp(ip)) if shared.tls.is_some() => {
                    let Some((stream, peer)) = encrypt(stream, ip, &shared).await else { return };
                    drop(place);
                    let Ok(_place) = Arc::clone(&shared.places.tcp).try_acquire_owned() else {
                        shared.places.tell_of(&peer);
                        return;
                    };
                    let (read, write) = split(stream);
                    begin(read, write, (peer, here), beginning, &shared).await;
                }
                (Stream::Tcp(stream), peer) => {
                    let (read, write) = stream.into_split();
                    begin(read, write, (peer, here), beginning, &shared).await;
                    drop(place);
                }
                (Stream::Unix(stream), peer) => {
                    let (read, write) = stream.into_split();
                    let write = Watched::new(write, refused_as_malformed(&peer, &beginning, &shared));
                    begin(read, write, (peer, here), beginning, &shared).await;
                    drop(place);
                }
            }
        });
    }
}

impl Beginning {
    fn counted(beginnings: &TaskTracker) -> Arc<Self> {
        Arc::new(Self { called: CancellationToken::new(), counted: Mutex::new(Some(beginnings.token())) })
    }

    /// It is none any more.
    fn made_a_call(&self) {
        if !self.called.is_cancelled() {
            self.called.cancel();
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl Places {
    fn new(most: usize) -> Self {
        let [tcp, unix, strangers] = std::array::from_fn(|_| Arc::new(Semaphore::new(most)));
        Self { tcp, unix, strangers, full: Seldom::new(FULL_WARNING) }
    }

    /// A place for a new connection.
    fn of(&self, stream: &Stream, encrypted: bool) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        let places = match stream {
            Stream::Tcp(_) if encrypted => &self.strangers,
            Stream::Tcp(_) => &self.tcp,
            Stream::Unix(_) => &self.unix,
        };
        Arc::clone(places).try_acquire_owned()
    }

    /// Says that there was none for this one, but not each time.
    fn tell_of(&self, peer: &Peer) {
        if self.full.is_due() {
            warn!(%peer, "connections are closed at once: limits.connections are open");
        }
    }
}

/// A connection whose other end showed a certificate, in time.
async fn encrypt(stream: TcpStream, ip: IpAddr, shared: &Shared) -> Option<(Encrypted, Peer)> {
    match in_time(shared.tls.as_ref()?.accept(stream), shared).await? {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
            let peer = Peer::certified(ip, shown);
            Some((stream, peer))
        }
        Ok(Err((error, stream))) => {
            info!(peer = %ip, reason = handshake::explain(&error), "connection closed: no TLS handshake");
            let (read, write) = stream.into_split();
            part(read, write).await;
            None
        }
        Err(_) => {
            debug!(peer = %ip, "connection closed: no TLS handshake in time");
            None
        }
    }
}

/// Ends a connection so that what was written reaches the other end: the system throws that away where bytes are left unread.
async fn part(read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin) {
    let _ = timeout(LAST_BYTES, async {
        let _ = write.shutdown().await;
        let _ = tokio::io::copy(&mut read.take(LAST_READ), &mut tokio::io::sink()).await;
    })
    .await;
}

/// The beginning of a connection, as long as that may take, and as long as it may still make a call.
async fn in_time<T>(beginning: impl Future<Output = T>, shared: &Shared) -> Option<Result<T, Elapsed>> {
    shared.stages.last_call.run_until_cancelled(timeout(PREFACE_TIME, beginning)).await
}

/// Serves one connection if it begins as HTTP/2 does, in time.
async fn begin(
    mut read: impl AsyncRead + Unpin + Send + 'static,
    mut write: impl AsyncWrite + Unpin + Send + 'static,
    ends: (Peer, Here),
    beginning: Arc<Beginning>,
    shared: &Arc<Shared>,
) {
    let mut preface = [0; PREFACE.len()];
    match in_time(read.read_exact(&mut preface), shared).await {
        Some(Ok(Ok(_))) if preface == PREFACE => {
            serve(join(Cursor::new(preface).chain(read), write), ends, beginning, shared).await;
        }
        Some(Ok(Ok(_))) if handshake::is_tls(&preface) => {
            // Anyone who reaches the address can do this as often as they like.
            if shared.unexpected_tls.is_due() {
                info!(
                    peer = %ends.0,
                    "connection closed: the client speaks TLS, and this address does not use it (tls.certificate, tls.key and \
                     tls.clients switch it on for TCP)"
                );
            }
            let _ = timeout(LAST_BYTES, write.write_all(&handshake::PLAIN)).await;
            part(read, write).await;
        }
        Some(_) => debug!(peer = %ends.0, "connection closed: it did not begin as HTTP/2 does, or not in time"),
        None => {}
    }
}

/// Logs that a call was refused before it was one, if there was none on this connection.
fn refused_as_malformed(peer: &Peer, beginning: &Arc<Beginning>, shared: &Arc<Shared>) -> impl FnMut() + Unpin + use<> {
    let (peer, called, shared) = (peer.clone(), beginning.called.clone(), Arc::clone(shared));
    move || {
        if !called.is_cancelled() && shared.malformed.is_due() {
            warn!(
                %peer,
                "a call over the Unix socket was refused as malformed HTTP/2 (PROTOCOL_ERROR): gRPC clients in Python, C++, Ruby, PHP, \
                 Java and Swift send the socket's path as authority, which is not valid; set the authority to localhost \
                 (grpc.default_authority, in Java overrideAuthority)"
            );
        }
    }
}

/// Serves one connection until either end closes it.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, here): (Peer, Here),
    beginning: Arc<Beginning>,
    shared: &Arc<Shared>,
) {
    let caller = peer.clone();
    let (routes, measured) = (shared.routes.clone(), Arc::clone(shared));
    let first_call = beginning.called.clone();
    let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
        beginning.made_a_call();
        let path = request.uri().path().to_owned();
        let known = measured.methods.has(&path);
        let called = match protocol::not_grpc(&request) {
            // No call: nothing is measured.
            Some(refused) => Err(refused),
            None => {
                let measure = Measure::begin(&measured.telemetry, &measured.methods, &path);
                request.extensions_mut().insert(caller.clone());
                request.extensions_mut().insert(here.clone());
                Ok((measure, routes.clone().oneshot(request.map(tonic::body::Body::new))))
            }
        };
        async move {
            Ok::<_, Infallible>(match called {
                Err(refused) => refused,
                Ok((measure, answer)) => measure.answer(protocol::in_our_words(answer.await?, &path, known)),
            })
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let drained = async {
        shared.stages.drain.cancelled().await;
        shared.stages.last_call.run_until_cancelled(first_call.cancelled()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drained => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shared.stages.end.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_waited_for_until_its_first_call_or_its_end() {
        let beginnings = TaskTracker::new();
        let (called, silent) = (Beginning::counted(&beginnings), Beginning::counted(&beginnings));
        assert_eq!(beginnings.len(), 2);
        called.made_a_call();
        called.made_a_call();
        assert!(called.called.is_cancelled() && !silent.called.is_cancelled());
        assert_eq!(beginnings.len(), 1);
        drop(silent);
        assert!(beginnings.is_empty());
    }
}
