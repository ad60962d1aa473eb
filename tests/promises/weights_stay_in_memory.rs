//! Locked weights stay in memory, and where the system does not allow that, the daemon says what to do and ends.

use std::process::Command;

use recurve_tests::daemon::Setup;
use recurve_tests::process::{binary, clean, run};
use recurve_tests::world;

/// Bytes of memory that a process has locked.
fn locked(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn locked_weights_are_locked_while_they_are_served() {
    let bundle = world::tiny("f32");
    let plain = Setup::new(&bundle).start();
    let line = plain.wait_for("weights in memory");
    assert_eq!((line["locked"].as_bool(), locked(plain.pid())), (Some(false), 0));
    assert!(plain.stop().success());

    let daemon = Setup::new(&bundle).set("engine.lock_weights", true).start();
    let line = daemon.wait_for("weights in memory");
    let bytes = line["bytes"].as_u64().unwrap();
    assert_eq!(line["locked"].as_bool(), Some(true));
    assert!(bytes > 10_000 && locked(daemon.pid()) >= bytes, "{} of {bytes}", locked(daemon.pid()));
    assert!(daemon.stop().success());
}

#[test]
fn a_limit_that_is_too_low_is_refused_with_what_to_do() {
    // A limit below one page, and for root without the capability to pass over it.
    let mut command = clean("prlimit".into());
    command.arg("--memlock=1024:1024");
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--bounding-set=-ipc_lock"]);
    }
    if !Command::new("sh")
        .args(["-c", "command -v prlimit && command -v setpriv"])
        .output()
        .is_ok_and(|found| found.status.success())
    {
        println!("skipped: prlimit or setpriv, of util-linux, is not there");
        return;
    }
    command.arg(binary("recurved")).args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--bundle"]);
    command.arg(world::tiny("f32")).env("RECURVE_ENGINE__LOCK_WEIGHTS", "true");
    let ended = run(&mut command);
    assert_eq!(ended.code, Some(71), "{}", ended.stderr);
    for part in ["engine.lock_weights", "bytes are needed", "1024 bytes", "LimitMEMLOCK=", "ulimit -l", "CAP_IPC_LOCK"]
    {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}
