//! The model in the box answers over gRPC, and the daemon tells what it is and how it is.

use std::time::Duration;

use recurve_proto::v1::{FinishReason, TokenizeRequest, tokenize_request};
use recurve_tests::client::{channel, chat, connect, generate, greedy, soon};
use recurve_tests::daemon::Setup;
use recurve_tests::process::{agent_cli, run};
use recurve_tests::world;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const FAN: &str = "Please set the bedroom fan to 40";

#[tokio::test(flavor = "multi_thread")]
async fn a_command_becomes_an_action() {
    let daemon = Setup::new(&world::demo()).start();
    let client = connect(&daemon).await;
    let answer = generate(&client, chat(FAN)).await.unwrap();
    assert!(answer.text.contains("fan") && answer.text.contains("40"), "{}", answer.text);
    assert_eq!(answer.reason(), FinishReason::EndOfText);
    assert!(answer.deltas > 1, "the text streams");

    let finish = &answer.finish;
    assert!(finish.bundle.starts_with("sha256:") && finish.model == "demo-model", "{finish:?}");
    let usage = finish.usage.unwrap();
    assert_eq!(usage.completion_tokens, answer.tokens.len() as u64);
    assert!(usage.prompt_tokens > 0);
    let timings = finish.timings.unwrap();
    let time = |time: Option<prost_types::Duration>| Duration::try_from(time.unwrap()).unwrap();
    let (queue, prefill, first) = (time(timings.queue), time(timings.prefill), time(timings.time_to_first_token));
    assert!(queue + prefill <= first && first + time(timings.decode) <= time(timings.total), "{timings:?}");
    assert!(prefill > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_prints_what_the_stream_says() {
    let daemon = Setup::new(&world::demo()).unix().start();
    let answer = generate(&connect(&daemon).await, chat(FAN)).await.unwrap();
    let printed = run(&mut agent_cli(&["generate", "--on", &daemon.address, FAN])).success();
    assert_eq!(printed.trim_end(), answer.text.trim_end());
    let told = run(&mut agent_cli(&["generate", "--on", &daemon.address, "--format", "json", FAN])).json();
    assert_eq!(told["text"], answer.text.as_str());
    assert_eq!(told["tokens"], serde_json::json!(answer.tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_tokens_are_two_ways_to_say_the_same() {
    let daemon = Setup::new(&world::demo()).start();
    let client = connect(&daemon).await;
    let text = "the fan of the bedroom, 40 % — naïve 日本";
    let input = Some(tokenize_request::Input::Text(text.into()));
    let tokens =
        soon(client.clone().tokenize(TokenizeRequest { input, no_special_tokens: false, read_control_tokens: false }))
            .await
            .unwrap();
    let tokens = tokens.into_inner().tokens;
    let spoken = recurve_proto::v1::GenerateRequest {
        prompt: Some(recurve_proto::v1::generate_request::Prompt::Text(text.into())),
        ..greedy(&[], 12)
    };
    let one = generate(&client, spoken).await.unwrap();
    let other = generate(&client, greedy(&tokens, 12)).await.unwrap();
    assert_eq!((one.tokens, one.text), (other.tokens, other.text));
    let request = recurve_proto::v1::DetokenizeRequest { tokens, keep_special_tokens: false };
    assert_eq!(soon(client.clone().detokenize(request)).await.unwrap().into_inner().text, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service() {
    let daemon = Setup::new(&world::tiny("f32")).start();
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(&daemon).await);
    let mut answers = soon(client.server_reflection_info(tokio_stream::once(list))).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = soon(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort();
    for name in ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "recurve.v1.Inference"] {
        assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_daemon() {
    let daemon = Setup::new(&world::slow()).set("shutdown.grace", 60).start();
    let mut health = HealthClient::new(channel(&daemon).await);
    for service in ["", "recurve.v1.Inference"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = soon(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = soon(health.check(HealthCheckRequest { service: "none".into() })).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watch = soon(health.watch(HealthCheckRequest::default())).await.unwrap().into_inner();
    let status = |answer: Option<HealthCheckResponse>| answer.expect("a status").status();
    assert_eq!(status(soon(watch.message()).await.unwrap()), ServingStatus::Serving);
    let mut running = recurve_tests::client::begin(&connect(&daemon).await, greedy(&[2], 40)).await.unwrap();
    running.until(1).await.unwrap();
    daemon.terminate();
    assert_eq!(status(soon(watch.message()).await.unwrap()), ServingStatus::NotServing);
    let answer = running.rest().await.unwrap();
    assert_eq!((answer.tokens.len(), answer.reason()), (40, FinishReason::MaxTokens));
    assert!(daemon.ended().success());
}
