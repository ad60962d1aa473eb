//! A daemon without a bundle of its own serves the models that are deployed to it: `agent-cli` and `recurved`, as they are.

use std::fs;
use std::path::Path;

use recurve_bundle::Bundle;
use recurve_proto::reason;
use recurve_tests::client::{begin, channel, connect, generate, greedy, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, run};
use recurve_tests::world::{self, path};
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn ask(daemon: &Daemon, args: &[&str]) -> Ended {
    run(agent_cli(args).args(["--on", &daemon.address]))
}

fn deploy(daemon: &Daemon, bundle: &Path) -> Value {
    ask(daemon, &["deploy", path(bundle), "--format", "json"]).json()
}

/// Digest and role of each model.
fn models(daemon: &Daemon) -> Vec<(String, &'static str)> {
    let listed = ask(daemon, &["models", "--format", "json"]).json();
    let role = |model: &Value| match (model["active"] == true, model["previous"] == true) {
        (true, _) => "active",
        (_, true) => "previous",
        _ => "kept",
    };
    let models = listed.as_array().unwrap().iter();
    models.map(|model| (model["bundle"].as_str().unwrap().to_owned(), role(model))).collect()
}

fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap().digest().to_string()
}

async fn health(daemon: &Daemon) -> ServingStatus {
    let mut client = HealthClient::new(channel(daemon).await);
    client.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status()
}

/// The bundle that answers.
async fn served(daemon: &Daemon) -> String {
    generate(&connect(daemon).await, greedy(&[2, 9, 30], 3)).await.unwrap().finish.bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_the_second_model_and_back() {
    let state = tempfile::tempdir().unwrap();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let daemon = Setup::managed(state.path()).start();
    assert_eq!(health(&daemon).await, ServingStatus::NotServing);
    let refused = generate(&connect(&daemon).await, greedy(&[2], 1)).await.unwrap_err();
    assert_eq!(told(&refused).1, reason::NO_MODEL);
    assert!(ask(&daemon, &["models"]).success().contains("no models"));

    let bytes = Bundle::open(&int4).unwrap().bytes();
    let dry = ask(&daemon, &["deploy", path(&int4), "--dry-run", "--format", "json"]).json();
    assert_eq!((dry["travels"].as_u64(), models(&daemon).len()), (Some(bytes), 0));
    let first = deploy(&daemon, &int4);
    assert_eq!((first["sent"].as_u64(), first["bundle"].as_str()), (Some(bytes), Some(digest(&int4).as_str())));
    assert!(first["golden_test"].as_f64().unwrap() < 0.05 && first["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(health(&daemon).await, ServingStatus::Serving);
    assert_eq!(served(&daemon).await, digest(&int4));

    // A stream that runs is finished by the model that began it.
    let client = connect(&daemon).await;
    let running = begin(&client, greedy(&[2, 9], 2000)).await.unwrap();
    let second = deploy(&daemon, &int8);
    assert!(second["sent"].as_u64().unwrap() < Bundle::open(&int8).unwrap().bytes(), "shared blobs travel once");
    assert_eq!(served(&daemon).await, digest(&int8));
    let finished = running.rest().await.unwrap();
    assert_eq!((finished.finish.bundle, finished.tokens.len()), (digest(&int4), 2000));
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(0), "what is there does not travel");
    assert!(daemon.stop().success());

    // After a restart, the same.
    let daemon = Setup::managed(state.path()).start();
    assert_eq!(served(&daemon).await, digest(&int8));
    let mut expected = [(digest(&int4), "previous"), (digest(&int8), "active")];
    expected.sort();
    assert_eq!(models(&daemon), expected);
    let back = ask(&daemon, &["rollback", "--format", "json"]).json();
    assert_eq!((back["bundle"].as_str(), served(&daemon).await), (Some(digest(&int4).as_str()), digest(&int4)));
    let kept = ask(&daemon, &["models", "remove", &digest(&int8)]);
    assert!(kept.code == Some(1) && kept.stderr.contains("the one to go back to"), "{}", kept.stderr);

    let f32 = world::tiny("f32");
    deploy(&daemon, &f32);
    let freed = ask(&daemon, &["models", "remove", &digest(&int8)[..19], "--format", "json"]).json();
    assert!(freed["freed"].as_u64().unwrap() > 100_000, "{freed}");
    assert_eq!(models(&daemon).len(), 2);
    assert_eq!(served(&daemon).await, digest(&f32));
    let audit = fs::read_to_string(state.path().join("audit.jsonl")).unwrap();
    let count = |what: &str| audit.lines().filter(|line| line.contains(&format!("\"what\":\"{what}\""))).count();
    assert_eq!((count("receive"), count("activate"), count("remove")), (3, 4, 1), "{audit}");
    assert!(daemon.stop().success());
}

/// A copy of a bundle in which one file has other bytes, as many.
fn damaged(bundle: &Path, filepath: &str, copy: &Path) {
    let opened = Bundle::open(bundle).unwrap();
    let broken = opened.file(filepath).unwrap().digest;
    fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
    for name in ["oci-layout", "index.json"] {
        fs::copy(bundle.join(name), copy.join(name)).unwrap();
    }
    for blob in fs::read_dir(bundle.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let mut bytes = fs::read(blob.path()).unwrap();
        if blob.path() == opened.blob(&broken) {
            bytes.reverse();
        }
        fs::write(copy.join("blobs/sha256").join(blob.file_name()), bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_refused_and_the_model_before_serves_on() {
    let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let daemon = Setup::managed(state.path()).allow("the model was not changed").start();
    deploy(&daemon, &int4);
    let broken = dir.path().join("broken");
    damaged(&int8, "weights/layer-01.bin", &broken);
    let refused = ask(&daemon, &["deploy", path(&broken)]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("came with other bytes"), "{}", refused.stderr);
    assert_eq!(served(&daemon).await, digest(&int4));
    // What came whole is not sent again.
    let whole = Bundle::open(&int8).unwrap().bytes();
    let mended = deploy(&daemon, &int8);
    assert!(mended["sent"].as_u64().unwrap() < whole, "{mended}");
    assert_eq!(served(&daemon).await, digest(&int8));
    assert!(daemon.stop().success());
}

#[test]
fn a_stored_model_that_is_damaged_gives_way_to_the_one_before() {
    let state = tempfile::tempdir().unwrap();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let daemon = Setup::managed(state.path()).start();
    deploy(&daemon, &int4);
    deploy(&daemon, &int8);
    assert!(daemon.stop().success());
    let opened = Bundle::open(&int8).unwrap();
    let graph = opened.file("graph.onnx").unwrap().digest.hex();
    fs::remove_file(state.path().join("blobs/sha256").join(graph)).unwrap();
    let daemon = Setup::managed(state.path()).allow("rolled back").start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    assert!(failure(&daemon, &int8).unwrap().contains("graph.onnx"));
    assert!(fs::read_to_string(state.path().join("audit.jsonl")).unwrap().contains("graph.onnx"));
    // Deployed again, only what is lost travels.
    let again = deploy(&daemon, &int8);
    assert_eq!(again["sent"].as_u64(), Some(opened.file("graph.onnx").unwrap().size));
    assert!(daemon.stop().success());
}

#[test]
fn only_operators_deploy_and_only_where_models_are_kept() {
    let bundle = world::tiny("int4");
    for (setup, said) in [
        (Setup::new(&bundle), "only operators may do this"),
        (Setup::new(&bundle).unix(), "this node serves the bundle of its configuration"),
    ] {
        let daemon = setup.start();
        let refused = ask(&daemon, &["deploy", path(&bundle)]);
        assert!(refused.code == Some(1) && refused.stderr.contains(said), "{}", refused.stderr);
        assert!(daemon.stop().success());
    }
}

/// Why the daemon went back from a model.
fn failure(daemon: &Daemon, bundle: &Path) -> Option<String> {
    let listed = ask(daemon, &["models", "--format", "json"]).json();
    let model = listed.as_array().unwrap().iter().find(|model| model["bundle"] == digest(bundle).as_str()).cloned();
    model.unwrap()["failure"].as_str().map(str::to_owned)
}

fn ends_without_order(daemon: Daemon) {
    daemon.signal(rustix::process::Signal::KILL);
    assert!(!daemon.ended().success());
}

#[test]
fn a_model_that_ends_the_daemon_again_and_again_is_rolled_back_by_the_device() {
    let state = tempfile::tempdir().unwrap();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let start = || {
        let setup = Setup::managed(state.path()).set("probation.starts", 2);
        setup.allow("rolled back").allow("the model was not changed").start()
    };
    let daemon = start();
    deploy(&daemon, &int4);
    deploy(&daemon, &int8);
    ends_without_order(daemon);
    // A stop in order is not held against the model.
    assert!(start().stop().success());
    for _ in 0..2 {
        let daemon = start();
        assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int8).as_str());
        ends_without_order(daemon);
    }
    let daemon = start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    assert_eq!(failure(&daemon, &int8).unwrap(), "the daemon ended 2 times while it was on probation");
    assert_eq!(failure(&daemon, &int4), None);
    let refused = ask(&daemon, &["rollback"]);
    assert!(refused.stderr.contains("no model to go back to"), "{}", refused.stderr);
    // An operator may insist.
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(0));
    assert_eq!(failure(&daemon, &int8), None);
    assert!(daemon.stop().success());
}

#[test]
fn a_model_that_has_proved_itself_stays() {
    let state = tempfile::tempdir().unwrap();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let start = || Setup::managed(state.path()).set("probation.starts", 1).set("probation.seconds", 0).start();
    let daemon = start();
    deploy(&daemon, &int4);
    deploy(&daemon, &int8);
    while daemon.lines("model confirmed").len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ends_without_order(daemon);
    for _ in 0..3 {
        let daemon = start();
        assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int8).as_str());
        ends_without_order(daemon);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_and_what_waits_is_finished_by_the_model_that_it_was_asked_of() {
    let state = tempfile::tempdir().unwrap();
    let (slow, int8) = (world::slow(), world::tiny("int8"));
    let daemon = Setup::managed(state.path()).set("engine.slots", 1).set("shutdown.grace", 60).start();
    deploy(&daemon, &slow);
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], 200)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = begin(&client, greedy(&[2], 5)).await.unwrap();
    deploy(&daemon, &int8);
    assert_eq!(served(&daemon).await, digest(&int8), "while the other one still runs");
    for (answer, tokens) in [(running.rest().await.unwrap(), 200), (waiting.rest().await.unwrap(), 5)] {
        assert_eq!((answer.finish.bundle, answer.tokens.len()), (digest(&slow), tokens));
    }
    assert!(daemon.stop().success());
}
