//! A node in the test's own process that can be told to go away, for tests of who listens.

use std::pin::Pin;
use std::thread::JoinHandle;

use recurve_proto::v1::node_server::{Node, NodeServer};
use recurve_proto::v1::{
    AuditRequest, AuditResponse, CheckRequest, CheckResponse, ConfigureRequest, ConfigureResponse, DescribeNodeRequest,
    DescribeNodeResponse, DrainRequest, DrainResponse, LogLine, LogsRequest, LogsResponse, NodeState, TelemetryRequest,
    TelemetryResponse, WatchNodeRequest, WatchNodeResponse,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _, pending};
use tonic::{Request, Response, Status};

use crate::target::{Address, Target};

/// A node of this life that has logged so many lines.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) instance: &'static str,
    pub(crate) lines: u64,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    fn state(&self) -> Option<NodeState> {
        Some(NodeState { instance: self.instance.to_owned(), serving: true, ..NodeState::default() })
    }

    /// Serves at this port, or at any.
    pub(crate) fn serve(self, port: u16) -> Served {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        // With a runtime of its own, so that its connections end with it.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
                let server = tonic::transport::Server::builder().add_service(NodeServer::new(self));
                tokio::select! {
                    ended = server.serve_with_incoming(incoming) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let target = Target::Tcp { host: "127.0.0.1".to_owned(), port };
        Served { address: Address { target, certificates: None }, port, end: Some((stop, thread)) }
    }
}

/// A node that is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: Address,
    pub(crate) port: u16,
    end: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.end.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

#[tonic::async_trait]
impl Node for Fake {
    type TelemetryStream = Answer<TelemetryResponse>;
    type WatchStream = Answer<WatchNodeResponse>;
    type LogsStream = Answer<LogsResponse>;
    type AuditStream = Answer<AuditResponse>;
    type DrainStream = Answer<DrainResponse>;

    async fn describe(&self, _: Request<DescribeNodeRequest>) -> Result<Response<DescribeNodeResponse>, Status> {
        Ok(Response::new(DescribeNodeResponse { state: self.state(), ..DescribeNodeResponse::default() }))
    }

    async fn watch(&self, _: Request<WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // It says how it is once, and ends in order.
        let now = WatchNodeResponse { state: self.state(), ..WatchNodeResponse::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(now)))))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let asked = request.into_inner();
        let newest = if asked.last == 0 { 0 } else { self.lines.saturating_sub(asked.last.into()) };
        let lines = (asked.after.max(newest) + 1..=self.lines)
            .map(|number| LogLine { number, message: self.instance.to_owned(), ..LogLine::default() })
            .collect();
        let there = tokio_stream::once(Ok(LogsResponse { lines, lost: 0 }));
        Ok(Response::new(if asked.follow { Box::pin(there.chain(pending())) } else { Box::pin(there) }))
    }

    async fn telemetry(&self, _: Request<TelemetryRequest>) -> Result<Response<Self::TelemetryStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn audit(&self, _: Request<AuditRequest>) -> Result<Response<Self::AuditStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn configure(&self, _: Request<ConfigureRequest>) -> Result<Response<ConfigureResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
