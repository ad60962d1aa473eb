//! Where standard error is systemd's journal, lines go there with their fields and the right priorities: a real journald, in a
//! mount namespace of its own.

use std::path::PathBuf;
use std::process::Command;

use recurve_tests::process::{binary, clean, run};
use recurve_tests::world::{self, path};
use serde_json::Value;

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Starts a journal on an empty /run, a daemon whose standard error is that journal's, and asks the daemon something; prints what
/// the journal has of it.
const SCRIPT: &str = r#"
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir -p /run/log/journal
"$JOURNALD" >"$SCRATCH/journald" 2>&1 &
journald=$!
for _ in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
# What systemd sets for a service whose standard error it connected to the journal.
exec 3>"$SCRATCH/stderr"
JOURNAL_STREAM=$(stat -L -c '%d:%i' /proc/self/fd/3)
export JOURNAL_STREAM
"$RECURVED" --config /dev/null --bundle "$BUNDLE" --listen "unix:$SCRATCH/socket" --log debug 2>&3 &
daemon=$!
for _ in $(seq 100); do
    "$AGENT_CLI" tokenize --on "unix:$SCRATCH/socket" x >/dev/null 2>&1 && break
    sleep 0.1
done
"$AGENT_CLI" generate --on "unix:$SCRATCH/socket" "dim the hall lights to 30" >&2
kill "$daemon"
wait "$daemon"
journalctl --sync
journalctl -o json --no-pager -D /run/log/journal SYSLOG_IDENTIFIER=recurved
kill "$journald"
wc -c <"$SCRATCH/stderr" >&2
"#;

/// Whether this machine can do it; else says what is missing.
fn possible() -> bool {
    let root = rustix::process::getuid().is_root();
    let there = PathBuf::from(JOURNALD).exists();
    if !(root && there) {
        println!("left out: it needs root and {JOURNALD} (apt-get install systemd)");
    }
    root && there
}

#[test]
fn lines_go_to_the_journal_with_fields_and_priorities() {
    if !possible() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut script: Command = clean(PathBuf::from("unshare"));
    script
        .args(["--mount", "--propagation", "private", "bash", "-c", SCRIPT])
        .env("JOURNALD", JOURNALD)
        .env("RECURVED", binary("recurved"))
        .env("AGENT_CLI", binary("agent-cli"))
        .env("BUNDLE", world::demo())
        .env("SCRATCH", path(scratch.path()));
    let ended = run(&mut script);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.trim_end().ends_with("\n0"), "nothing is on standard error: {}", ended.stderr);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |message: &str| lines.iter().find(|line| line["LINE"] == message).unwrap_or_else(|| panic!("{message}"));
    let generated = |line: &&Value| line["LINE"] == "request" && line["METHOD"] == "Generate";
    let request = lines.iter().find(generated).expect("the request's line");
    assert_eq!(request["GRPC_STATUS"], "OK");
    assert_eq!(request["REQUEST_ID"].as_str().map(str::len), Some(36));
    assert_eq!(request["OUTCOME"], "end_of_text");
    assert!(request["BUNDLE"].as_str().unwrap().starts_with("sha256:"));
    assert!(request["TOTAL_MS"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    assert_eq!(find("ready")["MODEL"], "demo-model");
    assert!(find("ready")["MESSAGE"].as_str().unwrap().starts_with("ready bundle=sha256:"), "{}", find("ready"));
    // syslog's words: INFO is `info`, DEBUG is `debug`.
    assert_eq!(find("ready")["PRIORITY"], "6");
    assert!(lines.iter().any(|line| line["PRIORITY"] == "7"), "debug lines");
    assert!(lines.iter().all(|line| ["6", "7"].contains(&line["PRIORITY"].as_str().unwrap())), "nothing else happened");
    assert!(!ended.stdout.contains("hall lights"), "what is asked is in no line");
}
