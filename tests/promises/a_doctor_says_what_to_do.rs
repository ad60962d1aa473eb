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
