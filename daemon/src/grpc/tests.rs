//! A real server on real sockets, without an engine.

use std::time::Duration;

use recurve_proto::{reason, v1};
use recurve_telemetry::catalogue::METRICS;
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
use v1::models_client::ModelsClient;
use v1::node_client::NodeClient;
use v1::trust_client::TrustClient;

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
    let limits = Limits {
        max_message_bytes: 1024,
        max_prompt_tokens: 8,
        max_text_bytes: 1024,
        max_tokens: 8,
        max_score_tokens: 8,
        connections,
    };
    let settings = std::sync::Arc::new(crate::config::defaults());
    let telemetry = crate::telemetry::Telemetry::start(&settings).unwrap().telemetry;
    let log = crate::log::Log::start(&settings.log);
    let operations = Operations {
        settings,
        values: [].into(),
        listen: Vec::new(),
        log,
        telemetry: std::sync::Arc::clone(&telemetry),
        tls: None,
    };
    let node = Node::new(8, Duration::ZERO, telemetry);
    let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
    let address = listener.local().clone();
    let server = Server::start(&node, vec![listener], &limits, None, operations).await.unwrap();
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
    // An order that was being carried out ends.
    fixture.node.enter(Phase::Empty);
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
async fn who_has_connected_and_not_asked_yet_is_told_that_the_node_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("node.sock").display());
    let fixture = serve_on(&socket, 8).await;
    let channel = async || Endpoint::from_shared(socket.clone()).unwrap().connect().await.unwrap();
    let (mut inference, mut models) = (InferenceClient::new(channel().await), ModelsClient::new(channel().await));
    let (mut trust, mut operator) = (TrustClient::new(channel().await), NodeClient::new(channel().await));
    fixture.node.enter(Phase::Stopping);
    fixture.server.drain();
    // Within that they would hear that these connections take no calls any more.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let told = [
        inference.score(v1::ScoreRequest::default()).await.map(|_| ()),
        models.remove(v1::RemoveModelRequest::default()).await.map(|_| ()),
        trust.install(v1::InstallTrustRequest::default()).await.map(|_| ()),
        operator.drain(v1::DrainRequest { resume: false }).await.map(|_| ()),
    ];
    for status in told.map(Result::unwrap_err) {
        assert_eq!(
            (status.code(), reason_of(&status).as_str()),
            (Code::Unavailable, reason::SHUTTING_DOWN),
            "{status}"
        );
    }
    // Their first call was their last.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(inference.score(v1::ScoreRequest::default()).await.unwrap_err().get_details_error_info().is_none());
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

/// A node with its operator, over a Unix socket.
async fn operated() -> (Fixture, NodeClient<Channel>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sock");
    let fixture = serve_on(&format!("unix:{}", path.display()), 8).await;
    let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect().await.unwrap();
    (fixture, NodeClient::new(channel), dir)
}

#[tokio::test]
async fn operators_alone_look_into_a_node() {
    let fixture = serve().await;
    let mut stranger = NodeClient::new(fixture.channel().await);
    let refused = stranger.describe(v1::DescribeNodeRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason_of(&refused).as_str()), (Code::PermissionDenied, reason::NOT_ALLOWED));
    let (_fixture, mut operator, _dir) = operated().await;
    let node = operator.describe(v1::DescribeNodeRequest {}).await.unwrap().into_inner();
    assert!(node.cores > 0 && node.memory > 0 && !node.kernel.is_empty() && !node.architecture.is_empty(), "{node:?}");
    assert_eq!(node.settings["log.level"], "info,ort=warn");
    let watched = operator.watch(v1::WatchNodeRequest::default()).await.unwrap().into_inner().message().await.unwrap();
    let now = watched.unwrap();
    assert!(now.memory > 0 && now.process_memory > 0 && now.model.is_empty(), "{now:?}");
    let often = v1::WatchNodeRequest { every: Some(prost_types::Duration { seconds: 0, nanos: 1 }) };
    assert_eq!(reason_of(&operator.watch(often).await.unwrap_err()), reason::INVALID_REQUEST);
}

#[tokio::test]
async fn the_history_goes_over_the_wire_from_a_cursor() {
    let (fixture, mut operator, _dir) = operated().await;
    let history = fixture.node.telemetry().history();
    let event = |n: i64| v1::NodeEvent {
        at: Some(prost_types::Timestamp { seconds: n, nanos: 0 }),
        kind: "daemon.started".to_owned(),
        ..v1::NodeEvent::default()
    };
    for n in 0..600 {
        history.append(&v1::telemetry_record::Content::Event(event(n))).unwrap();
    }
    let mut ask = async |store: String, after| {
        let request = v1::TelemetryRequest { store, after, since: None, metrics: Vec::new() };
        let mut stream = operator.telemetry(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        let mut records = first.records;
        while let Some(message) = stream.message().await.unwrap() {
            records.extend(message.records);
        }
        (first.store, first.metrics.len(), records)
    };
    let (store, metrics, records) = ask(String::new(), 0).await;
    assert_eq!((store.clone(), metrics, records.len()), (history.store().to_string(), METRICS.len(), 600));
    assert_eq!(ask(store, 590).await.2.len(), 10);
    assert_eq!(ask("another".to_owned(), 590).await.2.len(), 600, "a cursor of another history is none");
}

#[tokio::test]
async fn settings_change_all_or_none() {
    let (_fixture, mut operator, _dir) = operated().await;
    let mut configure = async |settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        operator.configure(v1::ConfigureRequest { settings }).await
    };
    for (settings, words) in [
        (&[("log.level", "debug"), ("engine.slots", "8")][..], "engine.slots needs a restart"),
        (&[("log.level", "loud")], "log.level is \"loud\"; allowed: off, error"),
        (&[("telemetry.interval", "0")], "telemetry.interval is \"0\"; allowed: a whole number from 1 to 3600"),
        (&[("log.levle", "debug")], "log.levle is no key of the configuration; those that may change"),
        (&[("engine.slots", "8"), ("log.levle", "debug")], "; log.levle is no key of the configuration"),
        (&[], "settings is empty"),
    ] {
        let refused = configure(settings).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let changed = configure(&[("log.level", "debug"), ("telemetry.interval", "5")]).await.unwrap().into_inner().changed;
    let shown: Vec<_> = changed.iter().map(|c| (c.key.as_str(), c.before.as_str(), c.after.as_str())).collect();
    assert_eq!(shown, [("log.level", "info,ort=warn", "debug"), ("telemetry.interval", "60", "5")]);
    let node = operator.describe(v1::DescribeNodeRequest {}).await.unwrap().into_inner();
    assert_eq!((node.settings["log.level"].as_str(), node.settings["telemetry.interval"].as_str()), ("debug", "5"));
}

#[tokio::test]
async fn wrong_values_of_watch_and_logs_are_named() {
    let (_fixture, mut operator, _dir) = operated().await;
    let every = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let refused = operator.watch(v1::WatchNodeRequest { every }).await.unwrap_err();
    assert!(refused.message().contains("every: is -1 s and 0 ns: must be at least"), "{refused:?}");
    let refused = operator.logs(v1::LogsRequest { level: 99, ..v1::LogsRequest::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("level: is 99: must be from 0 (all) to 5"), "{refused:?}");
}

#[tokio::test]
async fn a_drained_node_says_so_until_it_resumes() {
    let (fixture, mut operator, _dir) = operated().await;
    let drained =
        operator.drain(v1::DrainRequest { resume: false }).await.unwrap().into_inner().message().await.unwrap();
    assert_eq!(drained, Some(v1::DrainResponse { draining: true, waiting: 0, active: 0 }));
    assert!(fixture.node.is_draining());
    assert!(matches!(fixture.node.serving().await, Err(crate::node::NotServing::Draining)));
    let resumed =
        operator.drain(v1::DrainRequest { resume: true }).await.unwrap().into_inner().message().await.unwrap();
    assert!(!resumed.unwrap().draining && !fixture.node.is_draining());
}

#[tokio::test]
async fn every_call_is_measured_with_its_status() {
    let fixture = serve().await;
    let mut client = fixture.inference().await;
    client.generate(text("x")).await.unwrap_err();
    let ended = async |method: &str, status: &str| {
        for _ in 0..200 {
            let metrics = fixture.node.telemetry().read();
            let mut builder = recurve_telemetry::builder::Builder::default();
            builder.observe(&metrics);
            let found = builder.finish().into_iter().any(|series| {
                series.metric == "rpc.server.call.duration"
                    && series.attributes["rpc.method"] == method
                    && series.attributes["rpc.response.status_code"] == status
                    && series.attributes.get("error.type").map(String::as_str) == (status != "OK").then_some(status)
            });
            if found {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    };
    assert!(ended("recurve.v1.Inference/Generate", "UNAVAILABLE").await);
    let mut health = HealthClient::new(fixture.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    assert!(ended("grpc.health.v1.Health/Check", "OK").await);
    let other = tonic::codegen::http::uri::PathAndQuery::from_static("/no.such.Service/Method");
    let mut bare = tonic::client::Grpc::new(fixture.channel().await);
    bare.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::ScoreRequest, v1::ScoreResponse>::default();
    bare.unary(tonic::Request::new(v1::ScoreRequest::default()), other, codec).await.unwrap_err();
    assert!(ended("_OTHER", "UNIMPLEMENTED").await, "names that callers make up are none of ours");
}
