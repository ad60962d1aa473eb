//! What is stored is not trusted for ever: damage on the disk is found at the start or while the daemon runs, a damaged model is
//! not served, and the next deployment brings what is damaged and no more.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recurve_bundle::Bundle;
use recurve_proto::v1::{Finding, TelemetryRecord, Verdict, WatchNodeRequest};
use recurve_tests::altered;
use recurve_tests::client::soon;
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::{ask, deploy, digest, failure, health, models, served};
use recurve_tests::node::{history, kinds, operator};
use recurve_tests::process::{binary, clean, run};
use recurve_tests::world::{self, path};
use rustix::process::Signal;
use tonic_health::pb::health_check_response::ServingStatus;

/// Damage is found by the golden test or by a deployment, not in the background.
fn without_background(state: &Path) -> Setup {
    Setup::managed(state).set("verify.rate", 0)
}

/// The file of a blob in a state directory or a bundle's folder, and its size.
fn blob(dir: &Path, bundle: &Path, filepath: &str) -> (PathBuf, u64) {
    let layer = Bundle::open(bundle).unwrap().file(filepath).unwrap().clone();
    (dir.join("blobs/sha256").join(layer.digest.hex()), layer.size)
}

/// Puts zeros in the place of a file's bytes from an offset on, without another inode.
fn zero(path: &Path, from: u64, to: u64) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0; usize::try_from(to - from).unwrap()]).unwrap();
}

/// Damage that the golden test sees: a whole layer without weights.
fn damage_much(dir: &Path, bundle: &Path) -> u64 {
    let (path, size) = blob(dir, bundle, "weights/layer-01.bin");
    zero(&path, 0, size);
    size
}

/// Damage that it may not see: one byte, in the middle of a layer.
fn damage_little(dir: &Path, bundle: &Path) -> u64 {
    let (path, size) = blob(dir, bundle, "weights/layer-01.bin");
    let byte = fs::read(&path).unwrap()[usize::try_from(size / 2).unwrap()];
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(size / 2)).unwrap();
    file.write_all(&[byte ^ 1]).unwrap();
    size
}

/// Removes the file of a layer, and returns its size.
fn unlink(dir: &Path, bundle: &Path) -> u64 {
    let (path, size) = blob(dir, bundle, "weights/layer-01.bin");
    fs::remove_file(path).unwrap();
    size
}

/// A rate at which the background takes some seconds to come to this layer.
const SLOW: u64 = 20_000;

/// What the daemon says of itself, of this check.
async fn findings(daemon: &Daemon, check: &str) -> Vec<Finding> {
    let answer = soon(operator(daemon).await.check(recurve_proto::v1::CheckRequest {})).await.unwrap();
    answer.into_inner().findings.into_iter().filter(|finding| finding.check == check).collect()
}

async fn alarms(daemon: &Daemon) -> Vec<String> {
    let mut stream = soon(operator(daemon).await.watch(WatchNodeRequest { every: None })).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap().alarms
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}

/// A stopped daemon's directory, in which int4 is the model before and int8 the active one.
fn two_models() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let daemon = without_background(state.path()).set("probation.seconds", 0).start();
    for weights in ["int4", "int8"] {
        deploy(&daemon, &world::tiny(weights));
        while daemon.lines("model confirmed").is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    while daemon.lines("model confirmed").len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(daemon.stop().success());
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_model_without_a_layer_fails_its_golden_test_at_the_start_and_gives_way() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let lost = damage_much(state.path(), &int8);
    let daemon = without_background(state.path()).allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    let reason = failure(&daemon, &int8).unwrap();
    assert!(reason.contains("weights/layer-01.bin") && reason.contains("holds other bytes"), "{reason}");
    until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"model.damaged")).await;
    let found = findings(&daemon, "models").await;
    assert!(found[0].verdict == i32::from(Verdict::Warning) && found[0].found.contains(&reason), "{found:?}");
    // The other program reads the same from the disk.
    let mut program = clean(binary("recurved"));
    program.args(["doctor", "--config", "/dev/null", "--state-dir", path(state.path())]);
    let told = run(&mut program).stdout;
    assert!(told.contains(&reason) && told.contains("agent-cli deploy"), "{told}");
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(lost), "only what is damaged travels");
    assert_eq!(served(&daemon).await, digest(&int8));
    assert_eq!((failure(&daemon, &int8), findings(&daemon, "models").await[0].verdict), (None, Verdict::Ok.into()));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_no_step_shows_is_found_in_the_background_while_the_model_is_served() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    damage_little(state.path(), &int8);
    let setup = Setup::managed(state.path()).set("verify.rate", 2_000_000);
    let daemon = setup.allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(
        daemon.wait_for("ready")["bundle"],
        digest(&int8).as_str(),
        "one bit is within the golden test's bounds"
    );
    assert!(daemon.wait_for("rolled back")["reason"].as_str().unwrap().contains("weights/layer-01.bin"));
    until("int4 answers", async || served(&daemon).await == digest(&int4)).await;
    until("the alarm", async || alarms(&daemon).await.contains(&"model-damaged".to_owned())).await;
    deploy(&daemon, &int8);
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    assert!(daemon.stop().success());
    let daemon = Setup::managed(state.path()).set("verify.rate", 1 << 30).start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int8).as_str());
    assert!(daemon.wait_for("stored models verified")["bytes"].as_u64().unwrap() > 100_000);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_missing_at_the_start_is_told_as_damage_and_a_deployment_brings_it() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let lost = unlink(state.path(), &int8);
    let daemon = without_background(state.path()).allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    let reason = failure(&daemon, &int8).unwrap();
    assert!(reason.starts_with("weights/layer-01.bin") && reason.ends_with("the file is missing"), "{reason}");
    until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"model.damaged")).await;
    until("the alarm", async || alarms(&daemon).await.contains(&"model-damaged".to_owned())).await;
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(lost), "only what is missing travels");
    assert_eq!((served(&daemon).await, failure(&daemon, &int8)), (digest(&int8), None));
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_removed_while_the_model_is_served_is_found_in_the_background() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let setup = Setup::managed(state.path()).set("verify.rate", SLOW);
    let daemon = setup.allow("rolled back").allow("a stored model is damaged").start();
    let lost = unlink(state.path(), &int8);
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int8).as_str());
    let reason = daemon.wait_for("rolled back")["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("weights/layer-01.bin") && reason.ends_with("the file is missing"), "{reason}");
    until("int4 answers", async || served(&daemon).await == digest(&int4)).await;
    until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"model.damaged")).await;
    until("the alarm", async || alarms(&daemon).await.contains(&"model-damaged".to_owned())).await;
    assert_eq!(failure(&daemon, &int8).as_ref(), Some(&reason));
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(lost));
    assert_eq!((served(&daemon).await, failure(&daemon, &int8)), (digest(&int8), None));
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_model_that_is_whole_again_is_served_without_a_restart() {
    let (state, int8) = (tempfile::tempdir().unwrap(), world::tiny("int8"));
    let daemon = without_background(state.path()).start();
    deploy(&daemon, &int8);
    assert!(daemon.stop().success());
    // The background comes to this layer late enough for it to be put back before.
    let (shard, _) = blob(state.path(), &int8, "weights/layer-04.bin");
    let aside = state.path().join("aside");
    fs::rename(&shard, &aside).unwrap();
    let setup = Setup::managed(state.path()).set("verify.rate", 2 * SLOW);
    let daemon = setup.allow("a stored model is damaged").allow("none to go back to").start();
    assert_eq!(health(&daemon).await, ServingStatus::NotServing);
    fs::rename(&aside, &shard).unwrap();
    until("it serves", async || health(&daemon).await == ServingStatus::Serving).await;
    assert_eq!((served(&daemon).await, failure(&daemon, &int8)), (digest(&int8), None));
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    assert!(daemon.has_logged("the active model is whole again and is served"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_with_none_before_it_is_not_served_and_the_reason_is_told() {
    let (state, int8) = (tempfile::tempdir().unwrap(), world::tiny("int8"));
    let daemon = without_background(state.path()).start();
    deploy(&daemon, &int8);
    assert!(daemon.stop().success());
    let lost = damage_little(state.path(), &int8);
    let allowed = |setup: Setup| setup.allow("is damaged").allow("none to go back to");
    let daemon = allowed(Setup::managed(state.path()).set("verify.rate", 2_000_000)).start();
    until("it stops serving", async || health(&daemon).await == ServingStatus::NotServing).await;
    for _ in 0..2 {
        let refused = ask(&daemon, &["generate", "--tokens", "2,9", "--max-tokens", "1"]);
        assert!(refused.stderr.contains("weights/layer-01.bin"), "{}", refused.stderr);
    }
    daemon.signal(Signal::KILL);
    assert!(!daemon.ended().success());
    // And so it stays, without a loop of starts that end.
    let daemon = allowed(without_background(state.path())).start();
    assert_eq!(health(&daemon).await, ServingStatus::NotServing);
    assert!(failure(&daemon, &int8).unwrap().contains("weights/layer-01.bin"));
    let found = findings(&daemon, "models").await;
    assert!(found.iter().any(|finding| finding.verdict == i32::from(Verdict::Problem)), "{found:?}");
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(lost));
    assert_eq!((served(&daemon).await, failure(&daemon, &int8)), (digest(&int8), None));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_what_is_there_and_served_brings_what_is_damaged() {
    let state = two_models();
    let int8 = world::tiny("int8");
    let lost = damage_little(state.path(), &int8);
    let daemon = without_background(state.path()).allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(served(&daemon).await, digest(&int8));
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(lost));
    assert_eq!(served(&daemon).await, digest(&int8));
    assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(0), "it is whole");
    let (stored, _) = blob(state.path(), &int8, "weights/layer-01.bin");
    assert_eq!(fs::read(stored).unwrap(), fs::read(blob(&int8, &int8, "weights/layer-01.bin").0).unwrap());
    assert!(daemon.stop().success());
}

/// The one line of a daemon that serves a damaged folder.
const FOLDER_DAMAGED: &str =
    "the bundle is damaged and is not served: copy or export the bundle again, and restart the daemon";

/// A daemon that serves a folder stops that, and says what is wrong and what to do: not to deploy, which it refuses.
async fn a_folder_is_told_to_be_damaged(daemon: &Daemon, wrong: &str) {
    until("it stops serving", async || health(daemon).await == ServingStatus::NotServing).await;
    let refused = ask(daemon, &["generate", "--tokens", "2,9", "--max-tokens", "1"]).stderr;
    for words in ["weights/layer-01.bin", wrong, "copy or export the bundle again, and restart the daemon"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert!(!refused.contains("agent-cli deploy"), "{refused}");
    let found = findings(daemon, "models").await;
    assert!(found[0].found.starts_with("model-damaged: weights/layer-01.bin"), "{found:?}");
    assert_eq!(daemon.lines(FOLDER_DAMAGED).len(), 1, "it is logged once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_from_the_folder_is_found_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = altered::copy(&world::tiny("int8"), &dir.path().join("bundle"));
    let daemon = Setup::new(&bundle).unix().set("verify.rate", SLOW).allow(FOLDER_DAMAGED).start();
    unlink(&bundle, &bundle);
    a_folder_is_told_to_be_damaged(&daemon, "the file is missing").await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_folder_is_refused_by_name_or_found_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = altered::copy(&world::tiny("int8"), &dir.path().join("bundle"));
    damage_little(&bundle, &bundle);
    let daemon = Setup::new(&bundle).unix().set("verify.rate", 2_000_000).allow(FOLDER_DAMAGED).start();
    a_folder_is_told_to_be_damaged(&daemon, "holds other bytes").await;
    assert!(daemon.stop().success());
    damage_much(&bundle, &bundle);
    let mut program = clean(binary("recurved"));
    program.args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--bundle", path(&bundle)]);
    let ended = run(&mut program);
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stderr.contains("weights/layer-01.bin") && !ended.stderr.contains(" ready"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_file_that_is_cut_short_while_it_is_mapped_is_named_and_the_next_start_goes_back() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let daemon = without_background(state.path()).set("engine.kernels", "recurve").allow("a mapped file").start();
    let (shard, _) = blob(state.path(), &int8, "weights/layer-01.bin");
    OpenOptions::new().write(true).open(&shard).unwrap().set_len(0).unwrap();
    let _ = ask(&daemon, &["generate", "--tokens", "2,9", "--max-tokens", "1"]);
    until("the line", async || daemon.has_logged("a mapped file cannot be read")).await;
    assert!(daemon.has_logged(path(&shard)) && daemon.has_logged("SIGBUS"));
    assert_eq!(daemon.ended().signal(), Some(Signal::BUS.as_raw()));
    let daemon = without_background(state.path()).allow("rolled back").allow("a stored model is damaged").start();
    assert_eq!(daemon.wait_for("ready")["bundle"], digest(&int4).as_str());
    assert!(failure(&daemon, &int8).unwrap().contains("the file has 0 bytes instead of"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_empty_or_gone_is_rebuilt_from_the_blobs_and_the_audit() {
    let state = two_models();
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let record = state.path().join("models.json");
    for (content, aside) in
        [(Some(""), Some(1)), (Some("{\"format\":1,"), Some(2)), (Some("\0\0\0"), Some(3)), (None, None)]
    {
        match content {
            Some(content) => fs::write(&record, content).unwrap(),
            None => fs::remove_file(&record).unwrap(),
        }
        let daemon = without_background(state.path()).allow("was rebuilt").start();
        assert_eq!(models(&daemon).iter().map(|(_, role)| *role).max(), Some("previous"));
        assert_eq!(served(&daemon).await, digest(&int8), "{content:?}");
        until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"store.rebuilt")).await;
        if let Some(number) = aside {
            let aside = state.path().join(format!("models.json.damaged-{number}"));
            assert_eq!(fs::read_to_string(&aside).unwrap(), content.unwrap());
            let found = findings(&daemon, "models").await;
            assert!(found[0].found.contains(path(&aside)), "{found:?}");
        }
        assert!(ask(&daemon, &["rollback"]).code == Some(0));
        assert_eq!(served(&daemon).await, digest(&int4));
        assert_eq!(deploy(&daemon, &int8)["sent"].as_u64(), Some(0));
        assert!(daemon.stop().success());
    }
    // A newer version's is left as it is.
    fs::write(&record, "{\"format\":2,\"more\":[]}").unwrap();
    let mut program = clean(binary("recurved"));
    program.args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--state-dir", path(state.path())]);
    let ended = run(&mut program);
    assert!(ended.code == Some(65) && ended.stderr.contains("has format 2"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&record).unwrap(), "{\"format\":2,\"more\":[]}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_is_removed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (state, aside) = (dir.path().join("state"), dir.path().join("aside"));
    let daemon = without_background(&state)
        .set("telemetry.interval", 1)
        .allow("the state directory was removed")
        .allow("the file of the history was removed")
        .start();
    deploy(&daemon, &world::tiny("int8"));
    let (store, _) = history(&daemon, 0).await;
    fs::rename(&state, &aside).unwrap();
    until("the alarm", async || alarms(&daemon).await.contains(&"state-gone".to_owned())).await;
    let found = findings(&daemon, "models").await;
    let said = |finding: &Finding| {
        finding.found.starts_with("state-gone") && finding.advice.contains("bring the directory back")
    };
    assert!(found.iter().any(said), "{found:?}");
    assert_eq!(served(&daemon).await, digest(&world::tiny("int8")), "it serves from memory");
    until("the history goes on", async || state.join("telemetry/history.db").is_file()).await;
    until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"state.gone")).await;
    let held = fs::read_dir(&state).unwrap().count();
    assert_eq!(held, 1, "only the history was made again");
    let (made, before) = history(&daemon, 0).await;
    assert_ne!(made, store, "meanwhile it is a new history");
    // First out of the way, in one step: the daemon makes it again where it is missing.
    fs::rename(&state, dir.path().join("made")).unwrap();
    fs::rename(&aside, &state).unwrap();
    until("the history before", async || history(&daemon, 0).await.0 == store).await;
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    each_once(&before, &history(&daemon, 0).await.1);
    assert!(daemon.stop().success());
}

/// Fails where a record of the history as it was is not in it any more, or one is in it twice.
fn each_once(before: &[TelemetryRecord], now: &[TelemetryRecord]) {
    fn words(record: &TelemetryRecord) -> String {
        format!("{:?}", record.content)
    }
    let mut times = BTreeMap::<String, usize>::new();
    for record in now {
        *times.entry(words(record)).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    let lost: Vec<_> = before.iter().filter(|record| !times.contains_key(&words(record))).collect();
    assert!(twice.is_empty() && lost.is_empty(), "twice: {twice:?}; lost: {lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_cannot_be_made_again_is_used_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (state, aside, taken) = (at("state"), at("aside"), at("taken"));
    // Nothing can be made in its place: a file has the name of the history's folder.
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("telemetry"), "").unwrap();
    let setup = || without_background(&state).set("telemetry.interval", 1);
    let allowed =
        |setup: Setup| setup.allow("the state directory was removed").allow("the file of the history was removed");
    let daemon = allowed(setup()).start();
    let (store, _) = history(&daemon, 0).await;
    fs::rename(&state, &aside).unwrap();
    fs::rename(&taken, &state).unwrap();
    for alarm in ["history-in-memory", "state-gone"] {
        until(alarm, async || alarms(&daemon).await.contains(&alarm.to_owned())).await;
    }
    until("the event", async || kinds(&history(&daemon, 0).await.1).contains(&"state.gone")).await;
    let (meanwhile, before) = history(&daemon, 0).await;
    assert_eq!(meanwhile, store, "it is the same history, without its name");
    fs::rename(&state, &taken).unwrap();
    fs::rename(&aside, &state).unwrap();
    until("no alarm", async || alarms(&daemon).await.is_empty()).await;
    assert!(daemon.stop().success());
    let daemon = setup().start();
    let (again, now) = history(&daemon, 0).await;
    assert_eq!(again, store);
    each_once(&before, &now);
    assert!(daemon.stop().success());
}

#[test]
fn a_model_that_proved_itself_while_the_disk_took_nothing_is_confirmed_when_it_does() {
    let (bundle, state) = (world::tiny("int4"), tempfile::tempdir().unwrap());
    let daemon =
        without_background(state.path()).set("probation.seconds", 1).allow("the disk does not take that").start();
    deploy(&daemon, &bundle);
    // The record cannot be replaced: its next version has no place.
    let taken = state.path().join("models.new");
    fs::create_dir(&taken).unwrap();
    let told = "the model is good, and the disk does not take that: tried again until it does";
    daemon.wait_for(told);
    let lines = || fs::read_to_string(state.path().join("audit.jsonl")).unwrap().lines().count();
    let before = lines();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((daemon.lines(told).len(), lines()), (1, before), "it is told once");
    fs::remove_dir(&taken).unwrap();
    daemon.wait_for("model confirmed");
    assert!(daemon.stop().success());
    let record = fs::read_to_string(state.path().join("models.json")).unwrap();
    assert!(record.contains("\"stage\":\"confirmed\"") && record.contains("\"proved\":true"), "{record}");
}
