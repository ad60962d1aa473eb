//! Tools that know nothing of Recurve take its bundles.

use std::path::Path;
use std::process::Command;

use recurve_tests::daemon::Setup;
use recurve_tests::process::{agent_cli, run};
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
