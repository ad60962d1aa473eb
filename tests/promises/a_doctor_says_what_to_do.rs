//! Whatever keeps a machine from serving is found, and it is said what to do about it: by `recurved doctor` where no daemon
//! starts, and by a daemon of itself.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use recurve_tests::daemon::Setup;
use recurve_tests::process::{agent_cli, binary, clean, run};
use recurve_tests::world::{self, path};
use serde_json::Value;

/// What the daemon's program finds with these settings, and its exit code.
fn doctor(settings: &[(&str, &str)]) -> (Vec<Value>, Option<i32>) {
    let mut program = clean(binary("recurved"));
    program.args(["doctor", "--format", "json", "--config", "/dev/null"]);
    let ended = run(program.envs(settings.iter().copied()));
    let report: Value = serde_json::from_str(&ended.stdout).expect("a report");
    (report["findings"].as_array().expect("findings").clone(), ended.code)
}

/// The first problem of a check.
fn problem<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let problem = findings.iter().find(|finding| finding["check"] == check && finding["verdict"] == "problem");
    let problem = problem.unwrap_or_else(|| panic!("no problem with {check}: {findings:#?}"));
    assert!(!problem["advice"].as_str().unwrap().is_empty(), "{problem}");
    problem
}

fn said(finding: &Value, words: &str) {
    assert!(finding["found"].as_str().unwrap().contains(words), "{words}: {finding}");
}

#[test]
fn where_nothing_is_wrong_there_is_no_problem() {
    let bundle = world::tiny("f32");
    let (findings, code) = doctor(&[("RECURVE_BUNDLE", path(&bundle)), ("RECURVE_LISTEN", "127.0.0.1:0")]);
    assert_eq!(code, Some(0), "{findings:#?}");
    for check in
        ["configuration", "cpu", "memory", "disk", "clock", "onnx runtime", "permissions", "ports", "mdns", "tls"]
    {
        assert!(findings.iter().any(|finding| finding["check"] == check), "{check}: {findings:#?}");
    }
    for check in ["thermal", "systemd"] {
        assert!(findings.iter().any(|finding| finding["check"] == check), "{check}: {findings:#?}");
    }
}

#[test]
fn every_problem_of_the_configuration_is_a_finding() {
    let (findings, code) = doctor(&[("RECURVE_ENGINE__SLOTS", "0"), ("RECURVE_LISTEN", "gateway")]);
    assert_eq!(code, Some(78));
    problem(&findings, "configuration");
    let problems: Vec<&Value> = findings.iter().filter(|finding| finding["verdict"] == "problem").collect();
    assert_eq!(problems.len(), 2, "{findings:#?}");
    said(problems[0], "listen = [");
    said(problems[1], "engine.slots = 0");
}

#[test]
fn a_library_a_model_and_keys_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    fs::write(&key, "no key").unwrap();
    let (findings, code) = doctor(&[
        ("RECURVE_ENGINE__LIBRARY", "/nowhere/libonnxruntime.so"),
        ("RECURVE_BUNDLE", "/nowhere/bundle"),
        ("RECURVE_TLS__CERTIFICATE", path(&key)),
        ("RECURVE_TLS__KEY", path(&key)),
        ("RECURVE_TLS__CLIENTS", "/nowhere/clients.pem"),
    ]);
    assert_eq!(code, Some(69));
    said(problem(&findings, "onnx runtime"), "/nowhere/libonnxruntime.so");
    said(problem(&findings, "memory"), "/nowhere/bundle");
    said(problem(&findings, "tls"), path(&key));
}

#[test]
fn who_has_the_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (findings, _) = doctor(&[("RECURVE_LISTEN", &address)]);
    let problem = problem(&findings, "ports");
    said(problem, &address);
    said(problem, &format!("process {}", std::process::id()));
}

#[test]
fn a_daemon_looks_at_itself() {
    let state = tempfile::tempdir().unwrap();
    let daemon = Setup::managed(state.path()).start();
    let examined = run(agent_cli(&["doctor", "--format", "json", "--on"]).arg(&daemon.address)).json();
    assert_eq!(examined["ok"], true, "{examined:#}");
    let findings = examined["findings"].as_array().unwrap();
    let of = |check: &str| findings.iter().find(|finding| finding["check"] == check).unwrap();
    said(of("ports"), "is served");
    said(of("onnx runtime"), "loaded");
    said(of("memory"), "there is no model yet");
    let text = run(agent_cli(&["doctor", "--on"]).arg(&daemon.address)).success();
    assert!(text.contains("+ ok") && text.contains("onnx runtime"), "{text}");
    assert!(daemon.stop().success());
}

#[test]
fn this_machine_is_looked_at_where_no_daemon_runs() {
    let here = |bundle: &Path| {
        let mut command = agent_cli(&["doctor"]);
        command.env("RECURVE_CONFIG", "/dev/null").env("RECURVE_LISTEN", "127.0.0.1:1").env("RECURVE_BUNDLE", bundle);
        run(&mut command)
    };
    let ended = here(Path::new("/nowhere/bundle"));
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("x PROBLEM memory") && ended.stdout.contains("> set `bundle`"), "{}", ended.stdout);
    assert!(ended.stdout.contains("no daemon answers at 127.0.0.1:1"), "{}", ended.stdout);
    assert!(ended.stderr.contains("found; what to do is said under"), "{}", ended.stderr);
}

/// A daemon with a bundle, whose only folder for what it keeps is on a file system that is read-only; then what is found there.
const READ_ONLY: &str = r#"
set -euo pipefail
mkdir "$SCRATCH/kept"
mount -t tmpfs -o ro tmpfs "$SCRATCH/kept"
export RECURVE_TELEMETRY__DIR="$SCRATCH/kept/telemetry" RECURVE_STATE_DIR="$SCRATCH/kept/state"
"$RECURVED" --config /dev/null --bundle "$BUNDLE" --listen "unix:$SCRATCH/socket" 2>"$SCRATCH/log" &
daemon=$!
for _ in $(seq 300); do
    "$AGENT_CLI" generate --tokens 2,9 --max-tokens 2 --on "unix:$SCRATCH/socket" >&2 2>"$SCRATCH/err" && break
    sleep 0.1
done
"$AGENT_CLI" generate --tokens 2,9 --max-tokens 2 --on "unix:$SCRATCH/socket" >&2
kill "$daemon"
wait "$daemon"
"$RECURVED" doctor --config /dev/null --bundle "$BUNDLE" --listen 127.0.0.1:0 --format json
echo "code $?"
"$RECURVED" doctor --config /dev/null --listen 127.0.0.1:0 --format json || echo "code $?"
"#;

#[test]
fn a_daemon_that_serves_on_a_read_only_root_is_not_said_to_be_ill() {
    if !rustix::process::getuid().is_root() {
        println!("left out: it needs root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut script = clean("unshare".into());
    script.args(["--mount", "--propagation", "private", "bash", "-c", READ_ONLY]);
    script.env("SCRATCH", scratch.path()).env("BUNDLE", world::tiny("f32"));
    script.env("RECURVED", binary("recurved")).env("AGENT_CLI", binary("agent-cli"));
    let ended = run(&mut script);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [served, "code 0", without, "code 69"] = lines[..] else { panic!("{}", ended.stdout) };
    let findings = |line: &str| -> Vec<Value> {
        serde_json::from_str::<Value>(line).unwrap()["findings"].as_array().unwrap().clone()
    };
    let disk = findings(served).into_iter().find(|finding| finding["check"] == "disk").unwrap();
    assert_eq!(disk["verdict"], "warning", "{disk}");
    said(&disk, "read-only: the history is kept in memory");
    // Without a bundle there is no place for models.
    said(problem(&findings(without), "disk"), "read-only");
}

/// Lets what this thread starts run on the first of its processors alone.
fn on_one_processor() -> Option<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
    if all.count() < 2 {
        println!("left out: there is one processor");
        return None;
    }
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
    Some(())
}

#[test]
fn threads_are_those_that_the_process_may_run() {
    // On a thread of its own, which alone is bound.
    let bound = || on_one_processor().map(|()| threads_on_one_processor());
    std::thread::spawn(bound).join().unwrap();
}

fn threads_on_one_processor() {
    let bundle = world::tiny("int4");
    let (findings, code) = doctor(&[("RECURVE_BUNDLE", path(&bundle)), ("RECURVE_LISTEN", "127.0.0.1:0")]);
    assert_eq!(code, Some(0), "{findings:#?}");
    let cpu = findings.iter().find(|finding| finding["check"] == "cpu").unwrap();
    said(cpu, "of which the affinity of this process allows 1");
    said(cpu, ", 1 thread");
    let more = [("RECURVE_ENGINE__THREADS", "2"), ("RECURVE_BUNDLE", path(&bundle)), ("RECURVE_LISTEN", "127.0.0.1:0")];
    let (findings, _) = doctor(&more);
    assert!(
        findings.iter().any(|finding| finding["check"] == "cpu" && finding["verdict"] == "warning"),
        "{findings:#?}"
    );
    let daemon = Setup::new(&bundle).start();
    assert_eq!(daemon.wait_for("graph loaded")["threads"], 1);
    assert!(daemon.stop().success());
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    for args in [&["check-config"][..], &["doctor"], &["config-reference"], &["--help"], &["--version"]] {
        let print = |stdout: std::process::Stdio| {
            let mut command = clean(binary("recurved"));
            command.args(args).args(["--config", "/dev/null", "--listen", "127.0.0.1:0"]);
            command.stdin(std::process::Stdio::null()).stdout(stdout).stderr(std::process::Stdio::piped());
            let output = command.spawn().unwrap().wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, said) = print(fs::File::options().write(true).open("/dev/full").unwrap().into());
        assert_eq!(code, Some(74), "{args:?}: {said}");
        assert!(said.contains("recurved: cannot write to standard output: No space left on device"), "{said}");
        assert_eq!(print(std::io::pipe().unwrap().1.into()), (Some(0), String::new()), "{args:?}");
    }
}
