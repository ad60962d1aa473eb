//! A path is bytes: one that is not UTF-8 is found where it is, by flags and variables of both programs, and nothing is made beside
//! it under another name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use recurve_tests::process::{agent_cli, binary, clean, run, until, wait};
use recurve_tests::world;
use rustix::process::{Pid, Signal, kill_process};

/// A name that is not UTF-8.
fn odd(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(&[name, b"\xff"].concat()))
}

fn unix(path: &Path) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(path);
    address
}

/// A daemon that serves at a socket; it ends with the test.
struct Served(Child);

impl Served {
    fn start(command: &mut Command, socket: &Path) -> Self {
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(|| socket.exists());
        Self(child)
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(wait(&mut self.0).success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn recurved() -> Command {
    let mut command = clean(binary("recurved"));
    command.args(["--config", "/dev/null"]);
    command
}

/// Every name in the folder begins as it should and ends in the byte that is no text.
fn only_odd_names(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(name.as_bytes().last(), Some(&0xff), "{name:?}");
    }
}

#[test]
fn flags_lead_to_the_bundle_and_the_socket_that_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, socket) = (odd(dir.path(), b"bundle"), odd(dir.path(), b"socket"));
    std::os::unix::fs::symlink(world::tiny("int4"), &bundle).unwrap();
    let served = Served::start(recurved().arg("--bundle").arg(&bundle).arg("--listen").arg(unix(&socket)), &socket);
    let answered =
        run(agent_cli(&["generate", "--tokens", "2,9", "--max-tokens", "3", "--format", "json", "--on"])
            .arg(unix(&socket)));
    assert_eq!(answered.json()["tokens"].as_array().unwrap().len(), 3);
    let checked = run(recurved().arg("check-config").arg("--bundle").arg(&bundle)).success();
    assert!(checked.contains(r"bundle\\xFF"), "every byte can be read: {checked}");
    served.stop();
    only_odd_names(dir.path());
}

#[test]
fn a_bundle_is_made_and_deployed_where_the_paths_say() {
    let dir = tempfile::tempdir().unwrap();
    let [config, bundle, state, socket, history] =
        [&b"config"[..], b"bundle", b"state", b"socket", b"history"].map(|name| odd(dir.path(), name));
    std::fs::write(&config, world::tiny_config()).unwrap();
    let exported =
        run(agent_cli(&["export", "--weights", "f32", "--random-weights"]).arg(&config).arg("--out").arg(&bundle));
    assert_eq!(exported.code, Some(0), "{}", exported.stderr);
    assert_eq!(run(agent_cli(&["bundle", "verify"]).arg(&bundle)).code, Some(0));
    let mut daemon = recurved();
    daemon.env("RECURVE_STATE_DIR", &state).env("RECURVE_LISTEN", unix(&socket));
    let served = Served::start(&mut daemon, &socket);
    let deployed = run(agent_cli(&["deploy", "--on"]).arg(unix(&socket)).arg(&bundle));
    assert_eq!(deployed.code, Some(0), "{}", deployed.stderr);
    assert!(state.join("models.json").exists());
    let gathered = run(agent_cli(&["telemetry", "--on"]).arg(unix(&socket)).arg("--store").arg(&history));
    assert_eq!(gathered.code, Some(0), "{}", gathered.stderr);
    assert!(history.is_file());
    served.stop();
    // Of the history the database has files beside it, named after it.
    for end in ["-wal", "-shm"] {
        let mut beside = history.clone().into_os_string();
        beside.push(end);
        let _ = std::fs::remove_file(beside);
    }
    only_odd_names(dir.path());
}
