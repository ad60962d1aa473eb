//! A real server on real sockets, without an engine.

use std::time::Duration;

use recurve_proto::{reason, v1};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;
use v1::inference_client::InferenceClient;

use super::*;
use crate::config::{Address, Limits};
use crate::node::{Node, Phase};
use crate::operate::Operations;

struct Fixture {
    node: std::sync::Arc<Node>,
    server: Server,
    address: Address,
}

async fn serve_on(address: &str, connections: usize) -> Fixture {
    let limits =
        Limits { max_message_bytes: 1024, max_prompt_tokens: 8, max_tokens: 8, max_score_tokens: 8, connections };
    let settings = std::sync::Arc::new(crate::config::defaults());
    let telemetry = crate::telemetry::Telemetry::start(&settings).unwrap().telemetry;
    let log = crate::log::Log::start(&settings.log);
    let operations = Operations { settings, listen: Vec::new(), log, telemetry: std::sync::Arc::clone(&telemetry) };
    let node = Node::new(8, telemetry);
    let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
    let address = listener.local().clone();
    let server = Server::start(&node, vec![listener], &limits, None, operations, None).await.unwrap();
    Fixture { node, server, address }
}

async fn serve() -> Fixture {
    serve_on("127.0.0.1:0", 8).await
}

impl Fixture {
    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn inference(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel().await)
    }
}

fn text(text: &str) -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: Some(v1::generate_request::Prompt::Text(text.into())),
        ..v1::GenerateRequest::default()
    }
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn a_node_that_loads_or_stops_says_so() {
    let fixture = serve().await;
    let mut client = fixture.inference().await;
    let loading = client.generate(text("x")).await.unwrap_err();
    assert_eq!((loading.code(), reason_of(&loading).as_str()), (Code::Unavailable, reason::LOADING));
    assert!(loading.get_details_retry_info().is_some());
    fixture.node.enter(Phase::Stopping);
    let stopping = client.score(v1::ScoreRequest::default()).await.unwrap_err();
    assert_eq!((stopping.code(), reason_of(&stopping).as_str()), (Code::Unavailable, reason::SHUTTING_DOWN));
}

#[tokio::test]
async fn a_malformed_timeout_is_the_callers_fault() {
    let fixture = serve().await;
    let mut client = fixture.inference().await;
    let mut request = tonic::Request::new(text("x"));
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = client.generate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "grpc-timeout");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_both_sizes() {
    let fixture = serve().await;
    let mut client = fixture.inference().await;
    let status = client.generate(text(&"x".repeat(5000))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("1024"), "{}", status.message());
    assert_eq!(client.generate(text("x")).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn health_follows_the_node() {
    let fixture = serve().await;
    let mut client = HealthClient::new(fixture.channel().await);
    for service in ["", "recurve.v1.Inference"] {
        let response = client.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(response.into_inner().status(), ServingStatus::NotServing);
    }
    let unknown = client.check(HealthCheckRequest { service: "nothing".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let fixture = serve().await;
    let mut client = ServerReflectionClient::new(fixture.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["recurve.v1.Inference", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.sock");
    let fixture = serve_on(&format!("unix:{}", path.display()), 8).await;
    let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect().await.unwrap();
    let status = InferenceClient::new(channel).generate(text("x")).await.unwrap_err();
    assert_eq!(reason_of(&status), reason::LOADING);
    fixture.server.finish(Duration::ZERO).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_are_capped_and_their_places_come_back() {
    let fixture = serve_on("127.0.0.1:0", 1).await;
    let Address::Tcp(address) = fixture.address.clone() else { panic!() };
    let first = fixture.channel().await;
    assert!(InferenceClient::new(first.clone()).generate(text("x")).await.is_err());
    let second = TcpStream::connect(address).await.unwrap();
    second.readable().await.unwrap();
    let closed = second.try_read(&mut [0; 16]);
    assert!(!matches!(closed, Ok(n) if n > 0), "{closed:?}");
    drop(first);
    // The place is free as soon as the server saw the first one close.
    let status = loop {
        let endpoint = Endpoint::from_shared(format!("http://{}", fixture.address)).unwrap();
        if let Ok(channel) = endpoint.connect().await
            && let Err(status) = InferenceClient::new(channel).generate(text("x")).await
            && status.get_details_error_info().is_some()
        {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(reason_of(&status), reason::LOADING);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_begins_and_then_is_silent_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fixture = serve().await;
    let Address::Tcp(address) = fixture.address.clone() else { panic!() };
    for begun in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        // The clock moves on while nothing else can; this ends when the server closes the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test]
async fn a_server_that_finished_accepts_nothing() {
    let fixture = serve().await;
    let mut watching = HealthClient::new(fixture.channel().await);
    let watch = watching.watch(HealthCheckRequest::default()).await.unwrap();
    let Address::Tcp(address) = fixture.address.clone() else { panic!() };
    fixture.server.finish(Duration::from_secs(5)).await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(watch);
}

#[tokio::test]
async fn noise_instead_of_http2_closes_only_its_own_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fixture = serve().await;
    let Address::Tcp(address) = fixture.address.clone() else { panic!() };
    for noise in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xFF; 64], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF\xFF"]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(fixture.inference().await.generate(text("x")).await.unwrap_err().code(), Code::Unavailable);
}
