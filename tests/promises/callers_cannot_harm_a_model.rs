//! Whatever callers send, leave out or break off: nothing of it counts against the model, on its probation and in a rollout. What
//! the model does wrong by itself counts.

use std::path::Path;
use std::time::Duration;

use recurve_bundle::{Bundle, file};
use recurve_proto::reason;
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_proto::v1::{GenerateRequest, ListModelsRequest, NodeState, Sampling};
use recurve_tests::altered;
use recurve_tests::client::{Client, begin, by, channel, connect, generate, greedy, soon, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::fleet::Fleet;
use recurve_tests::managed::{deploy, digest, failure, served};
use recurve_tests::world;
use tonic::Code;

/// Far more tokens than are made before a test is over.
const ENDLESS: u32 = 131_072;
/// Far beyond the golden test of a tiny model.
const LATE: usize = 400;

async fn state(daemon: &Daemon) -> NodeState {
    let mut client = ModelsClient::new(channel(daemon).await);
    soon(client.list(ListModelsRequest {})).await.unwrap().into_inner().state.unwrap()
}

fn late() -> Vec<u32> {
    world::ids(LATE, 5)
}

fn sampled(sampling: Sampling) -> GenerateRequest {
    GenerateRequest { sampling: Some(sampling), ..greedy(&late(), 4) }
}

/// Penalties that take the logits of [`altered::shifts_later`] beyond what is finite.
fn overflowing() -> GenerateRequest {
    sampled(Sampling { temperature: Some(0.0), repetition_penalty: Some(0.01), ..Sampling::default() })
}

/// What callers can do, each a few times; every answer is one that blames the caller.
async fn misbehave(daemon: &Daemon, client: &Client) {
    let text = |text: String| GenerateRequest { prompt: Some(Prompt::Text(text)), ..GenerateRequest::default() };
    let penalty = |x| sampled(Sampling { repetition_penalty: Some(x), ..Sampling::default() });
    for request in [
        penalty(1e-38),
        penalty(f32::from_bits(1)),
        sampled(Sampling { temperature: Some(f32::NAN), ..Sampling::default() }),
        greedy(&[u32::MAX], 1),
        greedy(&late(), u32::MAX),
        GenerateRequest { stop: vec![String::new(); 99], ..greedy(&[2], 1) },
    ] {
        let (code, reason, _) = told(&generate(client, request).await.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, reason::INVALID_REQUEST));
    }
    let (code, reason, fields) = told(&generate(client, overflowing()).await.unwrap_err());
    assert_eq!(
        (code, reason.as_str(), fields),
        (Code::InvalidArgument, reason::INVALID_REQUEST, vec!["sampling".into()])
    );
    let (code, _, fields) = told(&generate(client, text("x".repeat(3_000_000))).await.unwrap_err());
    assert_eq!((code, fields), (Code::InvalidArgument, vec!["text".into()]));
    // This bundle has no tokenizer.
    let (code, reason, _) = told(&generate(client, text("x".into())).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, reason::NO_TOKENIZER));
    for millis in [1, 30] {
        let impatient =
            soon(client.clone().generate(by(greedy(&late(), ENDLESS), Duration::from_millis(millis)))).await;
        if let Ok(response) = impatient {
            let mut messages = response.into_inner();
            while let Ok(Some(_)) = soon(messages.message()).await {}
        }
    }
    // Gone while it is read, while it waits, and while it is answered; with a whole connection.
    drop(begin(client, greedy(&late(), ENDLESS)).await);
    let other = connect(daemon).await;
    let mut running = begin(&other, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(2).await.unwrap();
    let waiting = crowd(client, 12).await;
    assert!(waiting.contains(&Some(Code::ResourceExhausted)), "{waiting:?}");
    drop((running, other));
}

/// So many requests at once, which nobody reads.
async fn crowd(client: &Client, count: usize) -> Vec<Option<Code>> {
    let mut codes = Vec::new();
    let mut held = Vec::new();
    for _ in 0..count {
        match begin(client, greedy(&[2, 3], ENDLESS)).await {
            Ok(stream) => {
                codes.push(None);
                held.push(stream);
            }
            Err(status) => codes.push(Some(status.code())),
        }
    }
    codes
}

fn managed(folder: &Path) -> Setup {
    Setup::managed(folder)
        .set("probation.seconds", 8)
        .set("probation.probe", 1)
        .set("engine.slots", 2)
        .set("engine.queue", 4)
        // Comparing kernels takes a model further than the golden test.
        .set("engine.kernels", "recurve")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_on_probation_is_confirmed() {
    let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bundle = altered::shifts_later(&world::tiny("int8"), &dir.path().join("large"), -3e37);
    let daemon = managed(folder.path()).start();
    deploy(&daemon, &bundle);
    let client = connect(&daemon).await;
    misbehave(&daemon, &client).await;
    assert!(state(&daemon).await.probation.is_some(), "all of it was asked on probation");
    daemon.wait_for("model confirmed");
    let state = state(&daemon).await;
    assert_eq!((state.failed, state.bundle), (0, digest(&bundle)));
    assert_eq!(failure(&daemon, &bundle), None);
    assert!(daemon.stop().success());
}

#[test]
fn the_gate_of_a_rollout_stays_open() {
    let (fleet, dir) = (Fleet::new(2), tempfile::tempdir().unwrap());
    fleet.give(&world::tiny("int4"));
    let bundle = altered::shifts_later(&world::tiny("int8"), &dir.path().join("large"), -3e37);
    let mut rollout = fleet.begin(&bundle, &["--to", "all", "--waves", "1,100%", "--soak", "8s"]);
    rollout.until_state(1, "watched");
    let prompt: Vec<String> = late().iter().map(u32::to_string).collect();
    let prompt = prompt.join(",");
    let ask = |more: &[&str]| {
        let ask = ["generate", "--on", "gw-01", "--tokens", prompt.as_str(), "--max-tokens", "4", "--temperature", "0"];
        fleet.ask(&[&ask[..], more].concat())
    };
    assert_eq!(ask(&[]).code, Some(0));
    for wrong in ["1e-38", "0.01"] {
        let refused = ask(&["--repetition-penalty", wrong]);
        assert!(refused.stderr.contains("sampling"), "{}", refused.stderr);
    }
    assert_ne!(ask(&["--timeout", "1ms"]).code, Some(0));
    assert_eq!(rollout.ended(), Some(0), "{}", rollout.text());
    assert!(rollout.events("gate").all(|gate| gate["open"] == true), "{}", rollout.text());
    for (device, serves) in fleet.serves("all") {
        assert_eq!(serves, Some(digest(&bundle)), "{device}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_tokenizer_fails_at_does_not_count() {
    let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bundle = with_token(&world::demo(), &dir.path().join("odd"), "xyzzy");
    let daemon = managed(folder.path()).start();
    deploy(&daemon, &bundle);
    let client = connect(&daemon).await;
    let text = GenerateRequest { prompt: Some(Prompt::Text("say xyzzy".into())), ..GenerateRequest::default() };
    for _ in 0..3 {
        let (code, reason, _) = told(&generate(&client, text.clone()).await.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::Internal, reason::BUNDLE_UNUSABLE));
    }
    daemon.wait_for("model confirmed");
    assert_eq!(state(&daemon).await.failed, 0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tokenizer_that_fails_at_the_daemons_own_text_counts() {
    let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bundle = with_token(&world::demo(), &dir.path().join("odd"), "boiler room");
    let daemon = managed(folder.path()).allow("rolled back").start();
    deploy(&daemon, &world::tiny("int4"));
    deploy(&daemon, &bundle);
    daemon.wait_for("rolled back");
    assert_eq!(served(&daemon).await, digest(&world::tiny("int4")));
    assert!(failure(&daemon, &bundle).unwrap().contains("it failed the daemon's own probe"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_model_that_are_not_finite_are_the_models() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = altered::shifts_later(&world::tiny("int8"), &dir.path().join("bad"), f32::INFINITY);
    let daemon = Setup::new(&bundle).set("engine.kernels", "recurve").allow("the bundle cannot be used").start();
    // However the request adjusts them.
    for request in [overflowing(), greedy(&late(), 4)] {
        let status = generate(&connect(&daemon).await, request).await.unwrap_err();
        assert_eq!((status.code(), told(&status).1.as_str()), (Code::Internal, reason::NOT_A_NUMBER));
    }
    assert!(daemon.stop().success());
}

/// A copy of a bundle whose tokenizer makes a token of this word that its model does not have.
fn with_token(bundle: &Path, out: &Path, word: &str) -> std::path::PathBuf {
    let bytes = Bundle::open(bundle).unwrap().read(file::TOKENIZER).unwrap().unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    tokenizer["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
        "id": 1_000_000, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false,
    }));
    let out = altered::copy(bundle, out);
    altered::replace(&out, file::TOKENIZER, &serde_json::to_vec(&tokenizer).unwrap());
    out
}
