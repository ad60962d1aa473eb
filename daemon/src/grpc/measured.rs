//! How long each call took, and how it ended: seen from outside of all services, on the answer's last bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Frame, SizeHint};
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};

use super::status::code_name;
use crate::telemetry::Telemetry;

/// The conventions' word for a method that this server does not have.
const OTHER: &str = "_OTHER";
/// Calls that last as long as somebody looks: how long that was tells nothing of the node.
const LOOKING: [&str; 3] = ["Watch", "Logs", "ServerReflectionInfo"];

/// The methods of this server.
#[derive(Debug, Default)]
pub(super) struct Methods(Vec<String>);

impl Methods {
    /// Those of all services that are described.
    pub(super) fn of(descriptors: &[&[u8]]) -> Self {
        let mut names = Vec::new();
        for set in descriptors.iter().filter_map(|bytes| <FileDescriptorSet as prost::Message>::decode(*bytes).ok()) {
            for file in &set.file {
                for service in &file.service {
                    let name = |method: &prost_types::MethodDescriptorProto| {
                        format!("{}.{}/{}", file.package(), service.name(), method.name())
                    };
                    names.extend(service.method.iter().map(name));
                }
            }
        }
        Self(names)
    }

    /// Whether this path calls a method of ours.
    pub(super) fn has(&self, path: &str) -> bool {
        self.called(path).is_some()
    }

    /// The method that this path calls.
    fn called(&self, path: &str) -> Option<&str> {
        let path = path.strip_prefix('/')?;
        self.0.iter().find(|name| *name == path).map(String::as_str)
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Measure {
    telemetry: Arc<Telemetry>,
    /// None where it is not measured.
    method: Option<String>,
    begun: Instant,
    /// The status, once it is known.
    ended: Option<&'static str>,
}

impl Measure {
    /// A call of this path begins.
    pub(super) fn begin(telemetry: &Arc<Telemetry>, methods: &Methods, path: &str) -> Self {
        let method = methods.called(path);
        let looking = path.rsplit('/').next().is_some_and(|last| LOOKING.contains(&last));
        let method = (!looking).then(|| method.unwrap_or(OTHER).to_owned());
        Self { telemetry: Arc::clone(telemetry), method, begun: Instant::now(), ended: None }
    }

    /// The answer begins: it is measured until its end.
    pub(super) fn answer(mut self, response: http::Response<Body>) -> http::Response<Body> {
        // An error has its status among the headers, and nothing follows.
        self.see(response.headers());
        response.map(|body| Body::new(Measured { body, measure: self }))
    }

    fn see(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.ended = Some(code_name(status.code()));
        }
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        if let Some(method) = self.method.take() {
            // Whoever goes away before the end has cancelled it.
            let status = self.ended.unwrap_or_else(|| code_name(Code::Cancelled));
            self.telemetry.call(&method, status, self.begun.elapsed());
        }
    }
}

/// An answer on its way.
struct Measured {
    body: Body,
    measure: Measure,
}

impl hyper::body::Body for Measured {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.measure.see(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
