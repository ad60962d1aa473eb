//! A model reaches a fleet in waves, one device first, and goes on where it was interrupted: `agent-cli` and real daemons
//! behind mutual TLS.

use std::path::Path;
use std::time::Duration;

use recurve_bundle::Bundle;
use recurve_tests::authority::Authority;
use recurve_tests::fleet::{Fleet, Rollout, name};
use recurve_tests::process::{agent_cli, run};
use recurve_tests::proxy::{Link, Proxy};
use recurve_tests::world::{self, path};
use rustix::process::Signal;

fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap().digest().to_string()
}

/// Every device of a selector serves this.
fn all_serve(fleet: &Fleet, selector: &str, bundle: &Path) {
    for (device, serves) in fleet.serves(selector) {
        assert_eq!(serves, Some(digest(bundle)), "{device}");
    }
}

#[test]
fn wave_after_wave_and_nothing_twice() {
    let fleet = Fleet::new(4);
    let (old, new) = (world::tiny("int4"), world::tiny("int8"));
    fleet.give(&old);
    let mut rollout = fleet.begin(&new, &["--to", "gw-03", "--to", "all", "--waves", "1,50%,100%", "--soak", "0s"]);
    assert_eq!(rollout.ended(), Some(0), "{}", rollout.text());
    let waves: Vec<_> = rollout.events("wave_started").map(|event| event["devices"].to_string()).collect();
    assert_eq!(waves, [r#"["gw-03"]"#, r#"["gw-01"]"#, r#"["gw-02","gw-04"]"#]);
    assert!(rollout.events("gate").all(|gate| gate["open"] == true), "{}", rollout.text());
    for number in 1..=4 {
        let (planned, reported) = (rollout.planned(number), rollout.reported(number));
        assert_eq!(planned["serves"]["bundle"], digest(&old));
        assert_eq!((&reported["state"], &reported["sent"]), (&"proved".into(), &planned["bytes"]));
        assert!(planned["bytes"].as_u64().unwrap() < Bundle::open(&new).unwrap().bytes(), "shared blobs do not travel");
    }
    all_serve(&fleet, "all", &new);
    let mut again = fleet.begin(&new, &["--to", "all", "--soak", "0s"]);
    assert_eq!(again.ended(), Some(0));
    assert!((1..=4).all(|number| again.reported(number)["sent"] == 0), "{}", again.text());

    // The same names, addresses and certificates wherever a daemon is named.
    let one = fleet.ask(&["models", "--on", "gw-02", "--format", "json"]).json();
    assert_eq!(one.as_array().unwrap().len(), 2);
    let back = fleet.ask(&["rollback", "--to", "odd=no"]);
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    all_serve(&fleet, "odd=no", &old);
    all_serve(&fleet, "odd!=no", &new);
    let text = fleet.ask(&["status", "--to", "all"]).success();
    assert!(text.contains("gw-01") && text.contains("tiny-int8") && text.contains("tiny-int4"), "{text}");
}

#[test]
fn a_plan_changes_nothing() {
    let fleet = Fleet::new(2);
    fleet.give(&world::tiny("int4"));
    let audit = |number| std::fs::read_to_string(fleet.state(number).join("audit.jsonl")).unwrap();
    let before = [audit(1), audit(2)];
    let new = world::tiny("int8");
    let args = ["--to", "all", "--dry-run", "--limit-rate", "100kB/s"];
    let mut plan = fleet.begin(&new, &args);
    assert_eq!(plan.ended(), Some(0));
    let planned = plan.planned(1);
    let (bytes, seconds) = (planned["bytes"].as_u64().unwrap(), planned["seconds"].as_f64().unwrap());
    assert!(bytes > 100_000 && (seconds - bytes as f64 / 1e5).abs() < 1e-6, "{planned}");
    assert!(planned["disk_free"].as_u64().unwrap() > 0, "{planned}");
    let kinds: Vec<_> = plan.seen.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["begun", "plan", "finished"]);
    assert_eq!([audit(1), audit(2)], before);
    all_serve(&fleet, "all", &world::tiny("int4"));
    // For people, and with somebody out of reach.
    let mut fleet = fleet;
    fleet.kill(2);
    let text = fleet.ask(&["deploy", path(&new), "--to", "all", "--dry-run"]);
    assert_eq!(text.code, Some(8), "{}", text.stderr);
    assert!(text.stdout.contains("(assumed)") && text.stdout.contains("nothing listens there"), "{}", text.stdout);
}

#[test]
fn a_canary_that_fails_stops_the_rollout() {
    let fleet = Fleet::new(3);
    let old = world::tiny("int4");
    fleet.give(&old);
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    world::failing(&world::tiny("int8"), &bad);
    let mut rollout = fleet.begin(&bad, &["--to", "all", "--waves", "1,100%", "--soak", "0s"]);
    assert_eq!(rollout.ended(), Some(9), "{}", rollout.text());
    let states: Vec<_> = (1..=3).map(|number| rollout.reported(number)["state"].clone()).collect();
    assert_eq!(states, ["failed", "waiting", "waiting"]);
    let canary = rollout.reported(1);
    assert_eq!(canary["reason"]["cause"], "golden_test_failed", "{canary}");
    let gates: Vec<_> = rollout.events("gate").collect();
    assert!(gates.len() == 1 && gates[0]["open"] == false && gates[0]["failed"] == 1, "{gates:?}");
    all_serve(&fleet, "all", &old);
    for number in 2..=3 {
        assert_eq!(rollout.reported(number)["sent"], 0);
        let models = fleet.ask(&["models", "--on", &name(number), "--format", "json"]).json();
        assert_eq!(models.as_array().unwrap().len(), 1, "nothing came to {number}");
    }
    // Where one may fail, the next goes on, but the gate stays closed while nobody proved the model.
    let mut rollout = fleet.begin(&bad, &["--to", "all", "--waves", "1,100%", "--soak", "0s", "--max-failures", "1"]);
    assert_eq!(rollout.ended(), Some(9), "{}", rollout.text());
    let gate = rollout.events("gate").last().unwrap();
    assert!(gate["reason"].as_str().unwrap().contains("no device proved the model"), "{gate}");
}

#[test]
fn too_many_failures_stop_the_wave_that_they_happen_in() {
    let fleet = Fleet::new(4);
    fleet.give(&world::tiny("int4"));
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    world::failing(&world::tiny("int8"), &bad);
    let args = ["--to", "all", "--waves", "100%", "--soak", "0s", "--parallel", "1", "--max-failures", "25%"];
    let mut rollout = fleet.begin(&bad, &args);
    assert_eq!(rollout.ended(), Some(9), "{}", rollout.text());
    let count = |state: &str| (1..=4).filter(|number| rollout.reported(*number)["state"] == state).count();
    assert_eq!((count("failed"), count("waiting")), (2, 2), "one of four may fail:\n{}", rollout.text());
    let untouched = (1..=4).filter(|number| rollout.reported(*number)["state"] == "waiting");
    assert!(untouched.into_iter().all(|number| rollout.reported(number)["sent"] == 0), "{}", rollout.text());
}

#[test]
fn a_rollout_that_is_stopped_takes_back_what_it_changed() {
    let mut fleet = Fleet::new(4);
    let (old, new) = (world::tiny("int4"), world::tiny("int8"));
    fleet.give(&old);
    let args = ["--to", "all", "--waves", "2,100%", "--soak", "8s", "--patience", "1s", "--on-failure", "rollback"];
    let mut rollout = fleet.begin(&new, &args);
    for number in 1..=2 {
        rollout.until_state(number, "watched");
    }
    fleet.kill(2);
    assert_eq!(rollout.ended(), Some(9), "{}", rollout.text());
    let reported: Vec<_> = (1..=4).map(|number| rollout.reported(number)["state"].clone()).collect();
    assert_eq!(reported, ["rolled_back", "failed", "waiting", "waiting"], "{}", rollout.text());
    assert_eq!(rollout.reported(2)["reason"]["cause"], "lost");
    fleet.start(2);
    all_serve(&fleet, "gw-01,gw-03,gw-04", &old);
    // It was not heard of again, so it serves what it took.
    all_serve(&fleet, "gw-02", &new);
}

#[test]
fn a_canary_that_is_rolled_back_meanwhile_counts_as_failed() {
    let fleet = Fleet::new(3);
    let (old, new) = (world::tiny("int4"), world::tiny("int8"));
    fleet.give(&old);
    // Rolled back by hand while the second device is watched.
    let rolled_back = |waves| {
        let mut rollout = fleet.begin(&new, &["--to", "all", "--waves", waves, "--soak", "8s"]);
        rollout.until_state(2, "watched");
        fleet.ask(&["rollback", "--on", "gw-01"]).success();
        let code = rollout.ended();
        let canary = rollout.reported(1);
        let expected = ("failed", "serves_another", digest(&old));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let found = (&*text(&canary["state"]), &*text(&canary["reason"]["cause"]), text(&canary["serves"]["bundle"]));
        assert_eq!(found, expected, "{}", rollout.text());
        (code, [2, 3].map(|number| rollout.reported(number)["state"].clone()), rollout)
    };
    let (code, others, rollout) = rolled_back("1,2,100%");
    assert_eq!((code, others), (Some(9), ["proved".into(), "waiting".into()]), "{}", rollout.text());
    let gates: Vec<_> = rollout.events("gate").map(|gate| (gate["open"].clone(), gate["failed"].clone())).collect();
    assert_eq!(gates, [(true.into(), 0.into()), (false.into(), 1.into())]);
    all_serve(&fleet, "gw-03", &old);
    // In the last wave no gate is left: the report asks.
    let (code, others, rollout) = rolled_back("1,100%");
    assert_eq!((code, others), (Some(8), ["proved".into(), "proved".into()]), "{}", rollout.text());
    assert_eq!(rollout.events("report").next().unwrap()["outcome"], "partly");
}

/// Interrupts a rollout while bytes travel; gives what it had seen.
fn interrupted(fleet: &Fleet, bundle: &Path, signal: Signal) -> Rollout {
    let args = ["--to", "all", "--waves", "100%", "--soak", "0s", "--limit-rate", "300kB/s", "--parallel", "2"];
    let mut rollout = fleet.begin(bundle, &args);
    rollout.until("half of a transfer", |event| {
        let bytes = |field: &str| event[field].as_u64().unwrap_or(0);
        event["event"] == "transferred" && bytes("bytes") * 2 > bytes("of")
    });
    rollout.signal(signal);
    rollout
}

fn resumes(signal: Signal, code: Option<i32>) {
    let fleet = Fleet::new(3);
    let (old, new) = (world::tiny("int4"), world::tiny("int8"));
    fleet.give(&old);
    let mut first = interrupted(&fleet, &new, signal);
    assert_eq!(first.ended(), code, "{}", first.text());
    if code.is_some() {
        let unfinished = (1..=3).filter(|number| first.reported(*number)["state"] == "waiting").count();
        assert!(unfinished > 0, "it tells what is where:\n{}", first.text());
    }
    let mut second = fleet.begin(&new, &["--to", "all", "--waves", "100%", "--soak", "0s", "--resume"]);
    assert_eq!(second.ended(), Some(0), "{}", second.text());
    let bytes = |rollout: &Rollout| -> Vec<u64> {
        (1..=3).map(|number| rollout.planned(number)["bytes"].as_u64().unwrap()).collect()
    };
    let (before, after) = (bytes(&first), bytes(&second));
    for (number, left) in (1..=3).zip(&after) {
        let sent = second.reported(number)["sent"].as_u64().unwrap();
        assert_eq!(sent, *left, "{} gets what it lacks and no more", name(number));
    }
    // What left and did not arrive is what was on its way in two transfers.
    let left: u64 = (1..=3)
        .map(|number| {
            let device = name(number);
            let told = first.events("transferred").filter(|event| event["device"] == *device);
            told.map(|event| event["bytes"].as_u64().unwrap()).max().unwrap_or(0)
        })
        .sum();
    let spared = before.iter().sum::<u64>() - after.iter().sum::<u64>();
    assert!(spared > 0 && spared + 200_000 >= left, "{left} bytes left, {spared} of them came:\n{}", first.text());
    all_serve(&fleet, "all", &new);
}

#[test]
fn interrupted_with_ctrl_c_it_goes_on_where_it_was() {
    resumes(Signal::INT, Some(130));
}

#[test]
fn killed_it_goes_on_where_it_was() {
    resumes(Signal::KILL, None);
}

#[test]
fn a_link_that_breaks_is_made_again() {
    let fleet = Fleet::new(1);
    let new = world::tiny("int8");
    let bytes = Bundle::open(&new).unwrap().bytes();
    let link = Link { pause: Duration::from_millis(1), breaks_after: Some(bytes / 2) };
    let proxy = Proxy::new(fleet.ports()[0], link);
    fleet.write_inventory(&[proxy.port]);
    let mut rollout = fleet.begin(&new, &["--to", "all", "--soak", "0s"]);
    assert_eq!(rollout.ended(), Some(0), "{}", rollout.text());
    assert_eq!(rollout.events("retry").count(), 1, "{}", rollout.text());
    let sending: Vec<_> = rollout.events("device_state").filter_map(|event| event["bytes"].as_u64()).collect();
    assert!(matches!(sending[..], [first, second] if first == bytes && second < bytes), "{sending:?}");
    all_serve(&fleet, "all", &new);
}

#[test]
fn who_may_not_ask_is_told_so_and_who_is_away_is_named() {
    let state = tempfile::tempdir().unwrap();
    let daemon = recurve_tests::daemon::Setup::managed(state.path()).tcp().start();
    let status = |on: &str| run(&mut agent_cli(&["status", "--on", on]));
    let refused = status(&daemon.address);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("only operators may do this"), "{}", refused.stderr);
    let address = daemon.address.clone();
    assert!(daemon.stop().success());
    let away = status(&address);
    assert_eq!(away.code, Some(3), "{}", away.stderr);
    assert!(away.stdout.is_empty() && away.stderr.contains("nothing listens there"), "it is said once: {away:?}");
}

#[test]
fn who_shows_no_certificate_or_a_foreign_one_is_told_what_is_missing() {
    let fleet = Fleet::new(1);
    let dir = tempfile::tempdir().unwrap();
    let stranger = Authority::new(dir.path(), "others").identity("stranger", "operator");
    let (address, ca) = (format!("127.0.0.1:{}", fleet.ports()[0]), fleet.inventory().with_file_name("fleet.pem"));
    let own = ["--certificate", path(&stranger.certificate), "--key", path(&stranger.key)];
    for (shown, words) in [
        (vec![], "it speaks TLS, and no certificates were given: name them with --ca, --certificate and --key"),
        (vec!["--ca", path(&ca)], "it requires a certificate of the caller: name yours with --certificate and --key"),
        ([&["--ca", path(&ca)], &own[..]].concat(), "it does not know the authority that signed your certificate"),
    ] {
        for asked in
            [&["models", "--on", &address][..], &["status", "--on", &address], &["score", "x", "--on", &address]]
        {
            let ran = run(&mut agent_cli(&[asked, &shown].concat()));
            assert!(ran.code == Some(3) && ran.stderr.contains(words), "{shown:?}: {ran:?}");
        }
    }
}
