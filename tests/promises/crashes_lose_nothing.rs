//! The daemon is killed at any instant of a deployment, or any of its changes to the disk fails: after a restart the old or
//! the new model serves, the store is whole, and the deployment goes on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recurve_tests::altered;
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::{ask, deploy, digest};
use recurve_tests::process::{agent_cli, run, wait};
use recurve_tests::shim::{FAULTS, Fault, with_fault};
use recurve_tests::world::{self, path};
use rustix::process::Signal;
use serde_json::Value;

/// Deployments that are cut off.
const CUTS: u32 = 24;
/// Longer than a deployment of the tiny model takes, so that some cuts come after it.
const LONGEST: u64 = 250;

fn setup(state: &Path) -> Setup {
    // Kills are no fault of the model's here. The history has a test of its own, and changes in its own time.
    let telemetry = state.with_file_name("telemetry");
    Setup::managed(state)
        .set("probation.starts", 100)
        .set("engine.kernels", "recurve")
        .set("telemetry.dir", telemetry.display())
}

fn start(state: &Path) -> Daemon {
    setup(state).start()
}

fn begin_deploy(daemon: &Daemon, bundle: &Path) -> Child {
    let mut command = agent_cli(&["deploy", path(bundle), "--on", &daemon.address]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn active(daemon: &Daemon) -> Option<String> {
    let listed = run(&mut agent_cli(&["models", "--on", &daemon.address, "--format", "json"])).json();
    let models = listed.as_array().unwrap();
    let active = models.iter().find(|model| model["active"] == true)?;
    assert_ne!(active["model"], "", "an active model is whole");
    active["bundle"].as_str().map(str::to_owned)
}

/// Every blob of the store holds what its name says.
fn check_blobs(state: &Path) {
    for blob in std::fs::read_dir(state.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let digest = recurve_bundle::Digest::of(&std::fs::read(blob.path()).unwrap());
        assert_eq!(digest.hex(), blob.file_name().to_str().unwrap());
    }
}

/// Random numbers below a bound, from a seed that is printed.
fn random() -> impl FnMut(u64) -> u64 {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    move |below| {
        // xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn a_daemon_that_is_killed_while_models_are_deployed() {
    let mut next = random();
    let state = tempfile::tempdir().unwrap();
    let bundles = [world::tiny("int4"), world::tiny("int8"), world::tiny("f32")];
    let mut before: Option<String> = None;
    for cut in 0..CUTS {
        let wanted = &bundles[cut as usize % bundles.len()];
        let daemon = start(state.path());
        let mut deploying = begin_deploy(&daemon, wanted);
        std::thread::sleep(Duration::from_millis(next(LONGEST)));
        daemon.signal(Signal::KILL);
        assert!(!daemon.ended().success());
        wait(&mut deploying);
        check_blobs(state.path());

        let daemon = start(state.path());
        let now = active(&daemon);
        let either = [before.clone(), Some(digest(wanted))];
        assert!(either.contains(&now), "cut {cut}: {now:?} instead of one of {either:?}");
        let ready: Value = daemon.wait_for("ready");
        assert_eq!(ready["bundle"].as_str(), Some(now.clone().unwrap_or_default().as_str()), "cut {cut}");
        // Every third one is gone on with, and is whole then.
        before = match cut % 3 {
            0 => {
                run(&mut agent_cli(&["deploy", path(wanted), "--on", &daemon.address])).success();
                assert_eq!(active(&daemon), Some(digest(wanted)));
                Some(digest(wanted))
            }
            _ => now,
        };
        assert!(daemon.stop().success());
    }
}

/// A state directory in which a model is active that was signed, and another one that is to follow it.
struct Before {
    dir: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
}

impl Before {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trust = dir.path().join("trust");
        run(&mut agent_cli(&["trust", "init", "--dir", path(&trust)])).success();
        let signed = |weights: &str| {
            let bundle = altered::copy(&world::tiny(weights), &dir.path().join(weights));
            run(&mut agent_cli(&["trust", "sign", "--dir", path(&trust), path(&bundle)])).success();
            bundle
        };
        let old = signed("int4");
        let daemon = start(&dir.path().join("state"));
        ask(&daemon, &["trust", "install", path(&trust)]).success();
        deploy(&daemon, &old);
        // Its metadata are newer: deploying it updates what is believed.
        let new = signed("int8");
        assert!(daemon.stop().success());
        Self { dir, old, new }
    }

    /// Deploys the new model, goes back and deploys it again, with a daemon of which a change goes wrong; gives the number of
    /// changes that it made.
    fn life(&self, fault: Option<(u64, Fault)>) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let (state, log) = (dir.path().join("state"), dir.path().join("log"));
        assert!(
            Command::new("cp").arg("-r").args([&self.dir.path().join("state"), &state]).status().unwrap().success()
        );
        let context = format!("{fault:?}");
        let faulty = with_fault(setup(&state), &state, &log, fault).allow("");
        if let Some(daemon) = faulty.attempt() {
            for args in [&["deploy", path(&self.new)][..], &["rollback"], &["deploy", path(&self.new)]] {
                let ended = ask(&daemon, args);
                assert!(fault.is_some() || ended.code == Some(0), "{}", ended.stderr);
            }
            if fault.is_none_or(|(_, fault)| fault != Fault::Stop) {
                // It lives, and answers with one of the two.
                assert!([digest(&self.old), digest(&self.new)].contains(&answers(&daemon)), "{context}");
            }
            daemon.terminate();
            drop(daemon);
        }
        check_blobs(&state);
        let daemon = start(&state);
        let serves = answers(&daemon);
        assert!([digest(&self.old), digest(&self.new)].contains(&serves), "{context}: {serves}");
        assert_eq!(active(&daemon), Some(serves), "{context}");
        deploy(&daemon, &self.new);
        assert_eq!(answers(&daemon), digest(&self.new), "{context}");
        let believed = ask(&daemon, &["trust", "get", "--format", "json"]).json();
        let signed = believed["bundles"].as_array().unwrap();
        assert!([&self.old, &self.new].iter().all(|bundle| signed.contains(&digest(bundle).into())), "{context}");
        assert!(daemon.stop().success());
        std::fs::read_to_string(log).unwrap().lines().count() as u64
    }
}

fn answers(daemon: &Daemon) -> String {
    let answer = ask(daemon, &["generate", "--tokens", "2,9", "--max-tokens", "2", "--format", "json"]).json();
    answer["bundle"].as_str().unwrap().to_owned()
}

/// Changes that go wrong in the short form, one of each kind of fault in turn.
const SOME: u64 = 24;

#[test]
fn any_change_to_the_disk_may_go_wrong() {
    let before = Before::new();
    let mut next = random();
    let changes = before.life(None);
    assert!(changes > 100, "{changes}");
    for i in 0..SOME {
        // One of each part, so that the whole is covered.
        let at = (i * changes + next(changes)) / SOME;
        before.life(Some((at, FAULTS[i as usize % FAULTS.len()])));
    }
}

#[test]
#[ignore = "takes minutes: cargo test --release --test promises every_change -- --ignored"]
fn every_change_to_the_disk_goes_wrong_once_in_every_way() {
    let before = Before::new();
    let changes = before.life(None);
    println!("{changes} changes");
    for at in 0..changes {
        for fault in FAULTS {
            before.life(Some((at, fault)));
        }
    }
}
