//! Tools that know nothing of Recurve take its bundles and speak to its daemon.

use std::path::Path;
use std::process::Command;

use recurve_tests::daemon::Setup;
use recurve_tests::process::{agent_cli, run};
use recurve_tests::reference::repository;
use recurve_tests::world::{self, path};

/// Whether a program can be started; says it where it cannot.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn skopeo_copies_a_bundle() {
    if !installed("skopeo") {
        return;
    }
    let bundle = world::tiny("int8");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let oci = |path: &Path| format!("oci:{}", path.display());
    run(Command::new("skopeo").args(["--insecure-policy", "copy", &oci(&bundle), &oci(&copy)])).success();
    let verified = |at: &Path| run(&mut agent_cli(&["bundle", "verify", "--format", "json", path(at)])).json();
    assert_eq!(verified(&copy)["digest"], verified(&bundle)["digest"]);
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &oci(&bundle)])).json();
    assert_eq!(raw["schemaVersion"], 2);
    assert!(raw["layers"].as_array().is_some_and(|layers| layers.len() > 5), "{raw}");
    let daemon = Setup::new(&copy).start();
    assert!(daemon.stop().success());
}

#[test]
fn a_python_client_made_from_the_contract_streams() {
    let Some(python) = std::env::var_os("RECURVE_PYTHON") else {
        println!("skipped: RECURVE_PYTHON names no Python with grpcio and grpcio-tools");
        return;
    };
    let daemon = Setup::new(&world::demo()).start();
    let client = tempfile::tempdir().unwrap();
    let out = |option: &str| format!("--{option}={}", client.path().display());
    let mut protoc = Command::new(&python);
    protoc.current_dir(repository()).args(["-m", "grpc_tools.protoc", "-I", "proto"]);
    run(protoc.args([&out("python_out"), &out("grpc_python_out"), "recurve/v1/inference.proto"])).success();
    let mut example = Command::new(&python);
    example.current_dir(repository()).env("PYTHONPATH", client.path()).arg("docs/examples/generate.py");
    let said = run(example.args([&daemon.address, "Please set the bedroom fan to 40"])).success();
    assert!(said.contains("fan") && said.contains("40") && said.contains("[FINISH_REASON_END_OF_TEXT"), "{said}");
    assert!(daemon.stop().success());
}
