//! A daemon without a bundle of its own serves the models that are deployed to it: `agent-cli` and `recurved`, as they are.

use std::fs;
use std::path::Path;

use recurve_bundle::Bundle;
use recurve_proto::reason;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_proto::v1::{ModelStage, PlanRequest, WatchModelsRequest};
use recurve_tests::client::{begin, channel, connect, generate, greedy, told};
use recurve_tests::daemon::Setup;
use recurve_tests::managed::{ask, deploy, digest, health, models, served};
use recurve_tests::world::{self, path};
use tonic_health::pb::health_check_response::ServingStatus;

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
    assert_eq!(models(&daemon), [(digest(&int8), "active"), (digest(&int4), "previous")]);
    let back = ask(&daemon, &["rollback", "--format", "json"]).json();
    assert_eq!((back["bundle"].as_str(), served(&daemon).await), (Some(digest(&int4).as_str()), digest(&int4)));
    let again = ask(&daemon, &["rollback", "--from", &digest(&int8), "--format", "json"]).json();
    assert_eq!((again["bundle"].as_str(), served(&daemon).await), (Some(digest(&int4).as_str()), digest(&int4)));
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
    assert_eq!((count("receive"), count("activate")), (3, 4), "{audit}");
    // One was refused, and that is a line as well.
    let removed: Vec<_> = audit.lines().filter(|line| line.contains("\"what\":\"remove\"")).collect();
    let done = |line: &&str| line.contains("\"result\":\"done\"");
    assert_eq!(removed.iter().map(done).collect::<Vec<_>>(), [false, true], "{audit}");
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
    // The device noticed it; the damage is here, and that is said.
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    assert!(refused.stderr.contains(path(&broken)), "{}", refused.stderr);
    assert_eq!(served(&daemon).await, digest(&int4));
    // What came whole is not sent again.
    let whole = Bundle::open(&int8).unwrap().bytes();
    let mended = deploy(&daemon, &int8);
    assert!(mended["sent"].as_u64().unwrap() < whole, "{mended}");
    assert_eq!(served(&daemon).await, digest(&int8));
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

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_every_change_and_how_the_node_is() {
    let state = tempfile::tempdir().unwrap();
    let int4 = world::tiny("int4");
    let daemon = Setup::managed(state.path()).set("probation.seconds", 1).start();
    let mut client = ModelsClient::new(channel(&daemon).await);
    let mut changes = client.watch(WatchModelsRequest {}).await.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert!(first.models.is_empty() && !first.state.unwrap().serving);
    deploy(&daemon, &int4);
    assert_eq!(served(&daemon).await, digest(&int4));
    let last = loop {
        let change = changes.message().await.unwrap().unwrap();
        if change.models.iter().any(|model| model.stage() == ModelStage::Confirmed) {
            break change;
        }
    };
    let (model, state) = (&last.models[0], last.state.unwrap());
    assert!(model.active && model.tokens_per_second > 0.0 && !model.kernels.is_empty(), "{model:?}");
    assert_eq!((state.bundle.as_str(), state.serving, state.failed), (digest(&int4).as_str(), true, 0));
    assert_eq!(state.probation, None);
    assert!(state.answered >= 1 && !state.instance.is_empty() && !state.version.is_empty(), "{state:?}");

    let opened = Bundle::open(&world::tiny("int8")).unwrap();
    let (manifest, info) = (opened.manifest_bytes().unwrap(), opened.read("recurve.json").unwrap().unwrap());
    let request = |info: Vec<u8>| PlanRequest { manifest: manifest.clone().into(), info: info.into() };
    let plan = client.plan(request(info)).await.unwrap().into_inner();
    assert!(plan.memory > 64 << 20 && plan.memory_free > plan.memory && plan.refusal.is_empty(), "{plan:?}");
    let wrong = client.plan(request(b"{}".to_vec())).await.unwrap_err();
    assert_eq!(told(&wrong).1, reason::WRONG_BLOB);
    drop(changes);
    assert!(daemon.stop().success());
}
