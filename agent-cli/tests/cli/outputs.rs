//! Where standard output cannot be written, a command says so and fails; where its reader went away, it ends quietly.

use std::fs::File;
use std::process::Stdio;

use crate::fake::Fake;
use crate::program::{Ran, program};

/// What each command prints, on one line of standard input where it reads it.
fn commands(fake: &Fake, config: &str, out: &str, bundle: &str, fleet: &str) -> Vec<Vec<String>> {
    let on = &fake.on;
    [
        &["--help"][..],
        &["--version"],
        &["help", "deploy"],
        &["deploy", "--help"],
        &["completions", "bash"],
        &["devices", "--fleet", fleet],
        &["devices", "--fleet", fleet, "--format", "json"],
        &["export", "--random-weights", config, "--out", out],
        &["bundle", "inspect", bundle],
        &["bundle", "verify", bundle],
        &["bundle", "diff", bundle, bundle],
        &["generate", "--on", on, "hello"],
        &["generate", "--on", on, "--format", "json", "hello"],
        &["score", "--on", on, "hello"],
        &["tokenize", "--on", on, "hello"],
        &["detokenize", "--on", on, "2,17"],
        &["chat", "--on", on],
    ]
    .iter()
    .map(|args| args.iter().map(|arg| (*arg).to_owned()).collect())
    .collect()
}

fn each(check: impl Fn(&[&str], Stdio) -> Ran, stdout: impl Fn() -> Stdio) -> Vec<(String, Ran)> {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let config = crate::bundles::config(dir.path(), 96);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (bundle, fleet) = (path("bundle"), path("fleet.toml"));
    assert_eq!(crate::program::run(&["export", "--random-weights", &config, "--out", &bundle]).code, Some(0));
    std::fs::write(&fleet, "[[device]]\nname = \"gw-1\"\naddress = \"gw-1:1\"\n").unwrap();
    commands(&fake, &config, &path("other"), &bundle, &fleet)
        .iter()
        .map(|args| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let _ = std::fs::remove_dir_all(dir.path().join("other"));
            (args.join(" "), check(&args, stdout()))
        })
        .collect()
}

fn ran(args: &[&str], stdout: Stdio) -> Ran {
    let mut child = program(args).stdin(Stdio::piped()).stdout(stdout).spawn().unwrap();
    // A program that reads no input may be gone by now.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n");
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    for (command, ran) in each(ran, || File::options().write(true).open("/dev/full").unwrap().into()) {
        assert_eq!(ran.code, Some(1), "{command}: {ran:?}");
        let said = "agent-cli: cannot write to standard output: No space left on device";
        assert!(ran.err.contains(said), "{command}: {ran:?}");
    }
}

#[test]
fn a_reader_that_went_away_is_not() {
    for (command, ran) in each(ran, || std::io::pipe().unwrap().1.into()) {
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{command}: {ran:?}");
    }
}
