//! Requests as bytes, which no client of ours would send.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

use crate::client::soon;

/// A call over HTTP/2, as bytes.
#[derive(Debug, Clone)]
pub struct RawCall {
    /// `/package.Service/Method`.
    pub path: String,
    /// In addition to the usual ones, or instead of them.
    pub headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl RawCall {
    /// A call of a method of the service.
    pub fn new(method: &str, body: Vec<u8>) -> Self {
        Self { path: format!("/recurve.v1.Inference/{method}"), headers: Vec::new(), body }
    }

    /// With this header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it and gives the status of the answer.
    pub async fn send(self, channel: &Channel) -> Status {
        let mut request = Request::new(Body::new(Full::from(self.body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.path.parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert("content-type", "application/grpc".parse().expect("a header"));
        headers.insert("te", "trailers".parse().expect("a header"));
        for (name, value) in self.headers {
            headers.insert(name, value.parse().expect("a header"));
        }
        let mut channel = channel.clone();
        let sent = async { channel.ready().await?.call(request).await };
        let response = match soon(sent).await {
            Ok(response) => response,
            Err(error) => return Status::from_error(error.into()),
        };
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return status;
        }
        let trailers = match soon(body.collect()).await {
            Ok(collected) => collected.trailers().cloned().unwrap_or_default(),
            Err(status) => return status,
        };
        Status::from_header_map(&trailers)
            .unwrap_or_else(|| Status::new(Code::Unknown, format!("HTTP {}", head.status.as_u16())))
    }
}

/// A message in its frame.
pub fn frame(message: &impl Message) -> Vec<u8> {
    framed(0, &message.encode_to_vec())
}

/// Bytes in a frame with this flag.
pub fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(bytes.len()).expect("a short message").to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Sends bytes on a connection of their own, ends the sending side, and reads until the other end closes.
pub async fn bytes(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = soon(TcpStream::connect(address)).await.expect("a connection");
    let mut answer = Vec::new();
    // Either may fail: the other end may close as soon as it knows enough.
    let _ = soon(stream.write_all(bytes)).await;
    let _ = soon(stream.shutdown()).await;
    let _ = soon(stream.read_to_end(&mut answer)).await;
    answer
}
