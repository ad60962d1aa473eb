//! A model that is damaged, fails its golden test, or fails on its probation gives way to the one before, by the device alone.

use std::fs;
use std::path::{Path, PathBuf};

use recurve_bundle::Bundle;
use recurve_tests::altered;
use recurve_tests::client::{connect, generate, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::{ask, deploy, digest, failure, health, models, served};
use recurve_tests::world::{self, path};
use tonic_health::pb::health_check_response::ServingStatus;

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
    let daemon = Setup::managed(state.path()).allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    assert!(failure(&daemon, &int8).unwrap().contains("graph.onnx"));
    assert!(fs::read_to_string(state.path().join("audit.jsonl")).unwrap().contains("graph.onnx"));
    // Deployed again, only what is lost travels.
    let again = deploy(&daemon, &int8);
    assert_eq!(again["sent"].as_u64(), Some(opened.file("graph.onnx").unwrap().size));
    assert!(daemon.stop().success());
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
fn a_disk_that_takes_no_more_writes_keeps_nobody_from_serving() {
    let (bundle, state) = (world::tiny("int4"), tempfile::tempdir().unwrap());
    let daemon = Setup::managed(state.path()).start();
    deploy(&daemon, &bundle);
    daemon.signal(rustix::process::Signal::KILL);
    assert!(!daemon.ended().success());
    // The record cannot be replaced: its next version has no place.
    fs::create_dir(state.path().join("models.new")).unwrap();
    let start =
        || Setup::managed(state.path()).allow("the store cannot be written").allow("the next start counts").start();
    for _ in 0..5 {
        let daemon = start();
        assert_eq!(models(&daemon), [(digest(&bundle), "active")]);
        daemon.wait_for("ready");
        daemon.signal(rustix::process::Signal::KILL);
        assert!(!daemon.ended().success());
    }
    let daemon = start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&bundle));
    daemon.stop();
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
async fn a_model_that_fails_on_probation_gives_way_to_the_one_before_at_once() {
    type Make = fn(&Path, &Path) -> PathBuf;
    let dir = tempfile::tempdir().unwrap();
    let bad: [(&str, Make, &str); 2] = [
        ("fails", altered::fails_later, "it failed the daemon's own probe"),
        ("hangs", altered::hangs_later, "the step took longer than engine.step_limit allows"),
    ];
    for (name, make, said) in bad {
        let state = tempfile::tempdir().unwrap();
        let (good, bad) = (world::tiny("int4"), make(&world::tiny("int8"), &dir.path().join(name)));
        let daemon = Setup::managed(state.path())
            .set("engine.step_limit", 1)
            // Comparing kernels takes a model further than the golden test.
            .set("engine.kernels", "recurve")
            .set("probation.probe", 60)
            .allow("a step failed")
            .allow("rolled back")
            .allow("Gather")
            .allow("terminate")
            .start();
        deploy(&daemon, &good);
        assert_eq!(deploy(&daemon, &bad)["bundle"], digest(&bad).as_str(), "{name}: the golden test is passed");
        daemon.wait_for("rolled back");
        let client = connect(&daemon).await;
        // A request that comes meanwhile is answered, not refused.
        assert_eq!(generate(&client, greedy(&[2, 9, 30], 3)).await.unwrap().finish.bundle, digest(&good), "{name}");
        let reason = failure(&daemon, &bad).unwrap();
        assert!(reason.contains(said), "{name}: {reason}");
        assert!(fs::read_to_string(state.path().join("audit.jsonl")).unwrap().contains(said), "{name}");
        assert!(daemon.stop().success());
        let daemon = Setup::managed(state.path()).start();
        assert_eq!(daemon.wait_for("ready")["bundle"], digest(&good).as_str(), "{name}: and so it stays");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_model_that_fails_leaves_a_node_that_can_be_deployed_to() {
    let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bad = altered::fails_later(&world::tiny("int8"), &dir.path().join("bad"));
    let daemon =
        Setup::managed(state.path()).allow("a step failed").allow("none to go back to").allow("Gather").start();
    deploy(&daemon, &bad);
    daemon.wait_for("the model failed and there is none to go back to: deploy one");
    while health(&daemon).await == ServingStatus::Serving {}
    assert!(failure(&daemon, &bad).unwrap().contains("probe"));
    deploy(&daemon, &world::tiny("int4"));
    assert_eq!(served(&daemon).await, digest(&world::tiny("int4")));
    assert!(daemon.stop().success());
}

#[test]
fn a_model_whose_golden_test_fails_never_serves() {
    let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bad = altered::answers_otherwise(&world::tiny("int8"), &dir.path().join("bad"));
    for way in ["beside", "in_turn"] {
        let setup = Setup::managed(state.path()).set("deploy.switch", way);
        let daemon = setup.allow("the model was not changed").start();
        deploy(&daemon, &world::tiny("int4"));
        let refused = ask(&daemon, &["deploy", path(&bad)]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("the golden test failed"), "{}", refused.stderr);
        let text = ask(&daemon, &["generate", "--tokens", "2,9", "--max-tokens", "3", "--format", "json"]).json();
        assert_eq!(text["bundle"], digest(&world::tiny("int4")).as_str(), "{way}");
        assert!(daemon.stop().success());
    }
}
