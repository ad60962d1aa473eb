//! The daemon is killed at any instant of a deployment: after a restart the old or the new model serves, and the deployment
//! goes on.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recurve_bundle::Bundle;
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{agent_cli, run, wait};
use recurve_tests::world::{self, path};
use rustix::process::Signal;
use serde_json::Value;

/// Deployments that are cut off.
const CUTS: u32 = 24;
/// Longer than a deployment of the tiny model takes, so that some cuts come after it.
const LONGEST: u64 = 250;

fn start(state: &Path) -> Daemon {
    // Kills are no fault of the model's here.
    Setup::managed(state).set("probation.starts", 100).set("engine.kernels", "recurve").start()
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

#[test]
fn a_daemon_that_is_killed_while_models_are_deployed() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        // xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let state = tempfile::tempdir().unwrap();
    let bundles = [world::tiny("int4"), world::tiny("int8"), world::tiny("f32")];
    let digest = |bundle: &Path| Bundle::open(bundle).unwrap().digest().to_string();
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
