//! The inventory on the command line, and rollouts to devices that tell of every change in themselves.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::devices::{Change, Device};
use crate::program::{Ran, program, run};

fn with(fleet: &Path, args: &[&str]) -> Ran {
    run(&[args, &["--fleet", fleet.to_str().unwrap()]].concat())
}

#[test]
fn an_inventory_is_kept_with_its_comments() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = dir.path().join("plant/fleet.toml");
    let none = with(&fleet, &["devices"]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.err.contains("`agent-cli devices add NAME ADDRESS` begins one"), "{none:?}");

    let added = with(&fleet, &["devices", "add", "gw-1", "gw-1.lan:50051", "--label", "site=north"]);
    assert_eq!((added.code, added.out.as_str()), (Some(0), "gw-1 is added: gw-1.lan:50051; site=north\n"), "{added:?}");
    let text = fs::read_to_string(&fleet).unwrap();
    fs::write(&fleet, format!("# plant 7\n\n{text}")).unwrap();
    assert_eq!(with(&fleet, &["devices", "add", "gw-2", "unix:/run/x.sock"]).code, Some(0));
    assert_eq!(with(&fleet, &["devices", "label", "gw-2", "site=south", "role=test"]).code, Some(0));
    assert_eq!(with(&fleet, &["devices", "label", "gw-2", "role-"]).code, Some(0));
    let listed = with(&fleet, &["devices", "list", "--format", "json"]).json();
    let expected = json!([
        {"name": "gw-1", "address": "gw-1.lan:50051", "labels": {"site": "north"}, "tls": false},
        {"name": "gw-2", "address": "unix:/run/x.sock", "labels": {"site": "south"}, "tls": false},
    ]);
    assert_eq!(listed, expected);
    let table = with(&fleet, &["devices"]).out;
    assert!(table.contains("gw-1.lan:50051") && table.contains("site=south"), "{table}");
    assert_eq!(with(&fleet, &["devices", "remove", "gw-1"]).code, Some(0));
    assert!(fs::read_to_string(&fleet).unwrap().starts_with("# plant 7\n"));

    for (args, expected) in [
        (&["devices", "add", "gw-2", "b:1"][..], "gw-2 is in the inventory"),
        (
            &["devices", "add", "gw-2", "b:1"],
            "already, at unix:/run/x.sock: take another name, or remove it first with",
        ),
        (&["devices", "add", "gw 3", "b:1"], "\"gw 3\" is not allowed"),
        (&["devices", "add", "gw-3", "b"], "has no port"),
        (&["devices", "add", "gw-3", "unix:/run/x.sock"], "already, as gw-2: remove that one first with"),
        (&["devices", "add", "gw-3", "b:1", "--label", "x-"], "has no label to remove"),
        (&["devices", "label", "gw-22", "a=b"], "did you mean \"gw-2\"?"),
        (&["devices", "remove", "gw-1"], "no device of"),
        (&["status", "--to", "site=suoth"], "did you mean \"south\"?"),
        (&["status", "--on", "gw-22"], "did you mean \"gw-2\"?; for an address, write `gw-22:50051`"),
        (&["deploy", "/none", "--to", "all", "--waves", "1,10%"], "the last wave must be 100%"),
    ] {
        let ran = with(&fleet, args);
        assert!(ran.code == Some(2) && ran.err.contains(expected) && ran.out.is_empty(), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_rate_is_refused_before_a_registry_is_asked() {
    // Nobody listens there: who asked would say so, and end otherwise.
    let ran = run(&["deploy", "oci://127.0.0.1:9/models/tiny:1", "--limit-rate", "1MB/s"]);
    assert!(ran.code == Some(2) && ran.err.contains("--limit-rate bounds what is sent from here"), "{ran:?}");
}

#[test]
fn a_usage_line_is_the_same_whatever_the_environment_says() {
    let mut program = program(&["deploy"]);
    let ran = Ran::from(program.env("RECURVE_FLEET", "fleet.toml").env("RECURVE_ON", "gw-1").output().unwrap());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("Usage: agent-cli deploy [OPTIONS] <BUNDLE>\n"), "{ran:?}");
}

#[test]
fn a_daemon_of_the_environment_gives_way_to_devices_and_one_of_the_command_line_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = dir.path().join("fleet.toml");
    assert_eq!(with(&fleet, &["devices", "add", "gw-1", "unix:/nowhere/x.sock"]).code, Some(0));
    let args = ["status", "--to", "gw-1", "--format", "json", "--fleet", fleet.to_str().unwrap()];
    let ran = Ran::from(program(&args).env("RECURVE_ON", "127.0.0.1:9").output().unwrap());
    assert!(ran.code == Some(8) && ran.out.contains(r#""device":"gw-1""#), "{ran:?}");
    let both = with(&fleet, &["status", "--to", "gw-1", "--on", "gw-1"]);
    assert!(both.code == Some(2) && both.err.contains("--on names one daemon"), "{both:?}");
    let ignored = with(&fleet, &["deploy", "/none", "--resume"]);
    assert!(ignored.code == Some(2) && ignored.err.contains("--to <SELECTOR>"), "{ignored:?}");
}

#[test]
fn that_a_daemon_does_not_answer_is_said_once() {
    let ran = run(&["status", "--on", "unix:/nowhere/x.sock"]);
    assert!(ran.code == Some(3) && ran.out.is_empty() && ran.err.contains("there is no such socket"), "{ran:?}");
    let row = run(&["status", "--on", "unix:/nowhere/x.sock", "--format", "json"]);
    assert!(row.code == Some(3) && row.out.contains(r#""reachable":false"#), "{row:?}");
}

#[test]
fn a_name_that_could_be_an_address_says_what_is_missing() {
    let ran = run(&["models", "--on", "gateway", "--fleet", "/none/fleet.toml"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for expected in ["write `gateway:50051`", "/none/fleet.toml", "does not exist"] {
        assert!(ran.err.contains(expected), "{ran:?}");
    }
}

/// A small bundle at this place; gives its digest.
fn bundle(dir: &Path) -> String {
    let config = dir.join("config.json");
    let shape = json!({
        "model_type": "recurrent_gemma", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 384,
        "num_hidden_layers": 3, "num_attention_heads": 2, "attention_window_size": 16,
    });
    fs::write(&config, shape.to_string()).unwrap();
    let out = dir.join("bundle");
    let (config, out) = (config.to_str().unwrap(), out.to_str().unwrap());
    assert_eq!(run(&["export", "--random-weights", config, "--out", out, "--name", "tiny"]).code, Some(0));
    run(&["bundle", "inspect", out, "--format", "json"]).json()["digest"].as_str().unwrap().to_owned()
}

/// Rolls the bundle out to devices that then change so; gives exit code and report.
fn roll_out(dir: &Path, digest: &str, changes: &[Vec<Change>], args: &[&str]) -> (Option<i32>, Value) {
    let fleet = dir.join("fleet.toml");
    let _ = fs::remove_file(&fleet);
    let devices: Vec<Device> = changes.iter().map(|changes| Device::start(digest, changes.clone())).collect();
    for (number, device) in (1..).zip(&devices) {
        assert_eq!(with(&fleet, &["devices", "add", &format!("gw-{number}"), &device.on]).code, Some(0));
    }
    let bundle = dir.join("bundle");
    let deploy = ["deploy", bundle.to_str().unwrap(), "--to", "all", "--format", "json"];
    let ran = with(&fleet, &[&deploy, args].concat());
    let report = ran.out.lines().last().and_then(|line| serde_json::from_str(line).ok());
    (ran.code, report.unwrap_or_else(|| panic!("{ran:?}")))
}

#[test]
fn a_device_that_does_not_serve_well_closes_the_gate() {
    let dir = tempfile::tempdir().unwrap();
    let digest = bundle(dir.path());
    for (change, cause) in [
        (Change::RequestsFailed, "requests_failed"),
        (Change::Restarted, "restarted"),
        (Change::WentBack, "went_back"),
        (Change::ServesAnother, "serves_another"),
        (Change::NotServing, "not_serving"),
    ] {
        // Long enough that only what the device tells ends it.
        let args = ["--soak", "10m", "--waves", "1,100%"];
        let (code, report) = roll_out(dir.path(), &digest, &[vec![Change::Answered, change], vec![]], &args);
        let states: Vec<_> = report["devices"].as_array().unwrap().iter().map(|device| &device["state"]).collect();
        assert_eq!((code, states), (Some(9), vec![&json!("failed"), &json!("waiting")]), "{report}");
        assert_eq!(report["devices"][0]["reason"]["cause"], cause, "{report}");
    }
}

#[test]
fn a_device_that_serves_well_opens_it_whether_or_not_it_tells_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let digest = bundle(dir.path());
    for first in [Change::Answered, Change::WatchUnknown, Change::WatchEnds] {
        let changes = [vec![first, Change::Answered], vec![]];
        let (code, report) = roll_out(dir.path(), &digest, &changes, &["--soak", "1s", "--waves", "100%"]);
        assert_eq!((code, &report["outcome"]), (Some(0), &json!("done")), "{first:?}: {report}");
    }
    // Who cannot tell of changes is asked.
    let changes = [vec![Change::WatchUnknown, Change::RequestsFailed]];
    let (code, report) = roll_out(dir.path(), &digest, &changes, &["--soak", "10m"]);
    assert_eq!((code, &report["devices"][0]["reason"]["cause"]), (Some(9), &json!("requests_failed")), "{report}");
}

/// The state and cause of each device in a report.
fn ends(report: &Value) -> Vec<(&str, Option<&str>)> {
    let devices = report["devices"].as_array().unwrap().iter();
    devices.map(|device| (device["state"].as_str().unwrap(), device["reason"]["cause"].as_str())).collect()
}

/// It shows the change only after it was watched, since nothing is told of it.
fn later(change: Change) -> Vec<Change> {
    vec![Change::WatchUnknown, change]
}

#[test]
fn a_device_that_lost_the_model_after_it_was_watched_closes_the_next_gate() {
    let dir = tempfile::tempdir().unwrap();
    let digest = bundle(dir.path());
    let args = ["--soak", "0s", "--waves", "1,100%", "--patience", "2s"];
    for (change, cause) in [
        (Change::WentBack, "went_back"),
        (Change::ServesAnother, "serves_another"),
        (Change::NotServing, "not_serving"),
    ] {
        let (code, report) = roll_out(dir.path(), &digest, &[later(change), vec![]], &args);
        assert_eq!((code, ends(&report)), (Some(9), vec![("failed", Some(cause)), ("waiting", None)]), "{report}");
        // Where one may fail, the others get it, and the end is not "served everywhere".
        let forgiving = [&args[..], &["--max-failures", "1"]].concat();
        let (code, report) = roll_out(dir.path(), &digest, &[vec![], later(change), vec![]], &forgiving);
        let expected = vec![("proved", None), ("failed", Some(cause)), ("proved", None)];
        assert_eq!((code, ends(&report)), (Some(8), expected), "{report}");
        assert_ne!(report["devices"][1]["serves"]["bundle"], json!(digest), "{report}");
    }
    // What proved the model may be started again, and fail a request.
    for change in [Change::Restarted, Change::RequestsFailed] {
        let (code, report) = roll_out(dir.path(), &digest, &[later(change), vec![]], &args);
        assert_eq!((code, ends(&report)), (Some(0), vec![("proved", None); 2]), "{report}");
    }
}
