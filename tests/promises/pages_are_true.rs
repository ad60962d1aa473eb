//! The operator's walk-through, typed into a shell as it stands.

use std::os::unix::fs::symlink;
use std::process::Command;

use recurve_tests::page;
use recurve_tests::process::binary;
use recurve_tests::reference::repository;

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|found| found.status.success())
}

#[test]
fn the_walk_through_of_deploy_md_happens() {
    for program in ["openssl", "curl", "docker-registry"] {
        if !is_there(program) {
            println!("left out: {program} is not installed");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    symlink(repository().join("deploy"), folder.path().join("deploy")).unwrap();
    page::run(&repository().join("docs/deploy.md"), folder.path(), binary("agent-cli").parent());
}
