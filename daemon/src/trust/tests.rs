use std::fs;

use serde_json::{Value, json};

use super::record::{Below, Stored};
use super::*;

const NOW: &str = "2026-06-01T12:00:00Z";

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn file(kind: &str, expires: &str, fields: Value) -> String {
    let mut signed = json!({"_type": kind, "spec_version": "1.0.0", "version": 1, "expires": expires});
    signed.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"signed": signed, "signatures": []}).to_string()
}

fn bundle() -> Digest {
    Digest::of(b"manifest")
}

/// What is believed, with these times of expiry: root, timestamp, snapshot, targets.
fn trusted(expires: [&str; 4], known_time: Option<&str>) -> Trusted {
    let [root, timestamp, snapshot, targets] = expires;
    let hex = bundle().hex();
    let target = json!({"length": 8, "hashes": {"sha256": hex}});
    // A name that is not its digest counts for nothing.
    let other = json!({"length": 8, "hashes": {"sha256": Digest::of(b"other").hex()}});
    let stored = Stored {
        root: file("root", root, json!({"consistent_snapshot": true, "keys": {}, "roles": {}})),
        below: Some(Below {
            timestamp: file("timestamp", timestamp, json!({"meta": {}})),
            snapshot: file("snapshot", snapshot, json!({"meta": {}})),
            targets: file("targets", targets, json!({"targets": {hex: target, "other": other}})),
        }),
        known_time: known_time.map(time),
    };
    Trusted::new(stored).unwrap()
}

const LATER: [&str; 4] = ["2027-01-01T00:00:00Z"; 4];

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn open(&self, mode: Option<Mode>, reachable: bool) -> Result<Trust, TrustError> {
        let store = Arc::new(Store::open(self.dir.path()).unwrap());
        Trust::open(self.dir.path(), &TrustSettings { mode, root: None, reachable }, store)
    }

    fn trusting(&self, trusted: &Trusted) -> Trust {
        fs::create_dir_all(self.folder()).unwrap();
        trusted.write(&self.folder()).unwrap();
        self.open(None, false).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("trust")
    }
}

#[test]
fn each_role_can_expire_and_each_is_named() {
    for (kind, role) in [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets].iter().enumerate()
    {
        for (expires, good) in [("2026-06-01T12:00:01Z", true), (NOW, false), ("2026-06-01T11:59:59Z", false)] {
            let mut times = LATER;
            times[kind] = expires;
            let checked = Node::new().trusting(&trusted(times, None)).check_at(bundle(), 8, "x", Some(time(NOW)));
            match checked {
                Ok(()) => assert!(good, "{role} {expires}"),
                Err(TrustError::Expired { role: said, .. }) => assert!(!good && said == *role, "{role} {expires}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_model_is_known_by_digest_name_and_size() {
    let node = Node::new();
    let trust = node.trusting(&trusted(LATER, None));
    assert!(trust.check_at(bundle(), 8, "x", Some(time(NOW))).is_ok());
    for (digest, size) in [(bundle(), 9), (Digest::of(b"other"), 8), (Digest::of(b""), 8)] {
        let refused = trust.check_at(digest, size, "x", Some(time(NOW)));
        assert!(matches!(refused, Err(TrustError::NotSigned { .. })), "{refused:?}");
    }
    assert_eq!(trust.state().bundles, [bundle()]);
}

#[test]
fn the_time_that_was_reached_is_kept_and_a_clock_behind_it_is_told() {
    let node = Node::new();
    let trust = node.trusting(&trusted(LATER, None));
    trust.check_at(bundle(), 8, "x", Some(time(NOW))).unwrap();
    drop(trust);
    let trust = node.open(None, false).unwrap();
    assert_eq!(trust.state().known_time, Some(time(NOW)));
    // Within a minute it is the same time.
    trust.check_at(bundle(), 8, "x", Some(time("2026-06-01T11:59:00Z"))).unwrap();
    assert_eq!(trust.state().known_time, Some(time(NOW)));
    let refused = trust.check_at(bundle(), 8, "x", Some(time("2026-06-01T11:58:59Z")));
    assert!(matches!(refused, Err(TrustError::ClockBehind { .. })), "{refused:?}");
    // What has expired is not reached: a clock that is wrong now does not make the right one wrong.
    trust.check_at(bundle(), 8, "x", Some(time("2030-01-01T00:00:00Z"))).unwrap_err();
    assert_eq!(trust.state().known_time, Some(time(NOW)));
}

#[test]
fn the_way_back_does_not_close_with_time() {
    let node = Node::new();
    let trust = node.trusting(&trusted(["2020-01-01T00:00:00Z"; 4], None));
    assert!(matches!(trust.check(bundle(), 8, "x"), Err(TrustError::Expired { .. })));
    trust.check_back(bundle(), 8, "x").unwrap();
    let other = trust.check_back(Digest::of(b"other"), 8, "x");
    assert!(matches!(other, Err(TrustError::NotSigned { .. })), "{other:?}");
}

#[test]
fn the_time_that_passes_is_remembered_as_long_as_it_can_be_believed() {
    let node = Node::new();
    let trust = node.trusting(&trusted(LATER, Some(NOW)));
    let later = "2026-07-01T00:00:00Z";
    for (now, known) in [("2026-05-01T00:00:00Z", NOW), (later, later), ("2030-01-01T00:00:00Z", later)] {
        trust.remember_time(time(now)).unwrap();
        assert_eq!(trust.state().known_time, Some(time(known)), "{now}");
    }
}

#[test]
fn a_clock_that_is_a_little_behind_does_not_make_the_expired_good() {
    let known = "2027-01-01T00:00:10Z";
    let refused = judge(Some(&trusted(LATER, Some(known))), bundle(), 8, Some(time("2026-12-31T23:59:50Z")));
    assert!(matches!(refused, Err(TrustError::Expired { .. })), "{refused:?}");
}

#[test]
fn the_mode_follows_from_what_is_set_and_who_can_come() {
    for (mode, reachable, root, expected) in [
        (None, false, false, Mode::Off),
        (None, true, false, Mode::Enforce),
        (None, false, true, Mode::Enforce),
        (Some(Mode::Warn), true, true, Mode::Warn),
        (Some(Mode::Off), false, true, Mode::Off),
        (Some(Mode::Enforce), false, false, Mode::Enforce),
    ] {
        let node = Node::new();
        if root {
            drop(node.trusting(&trusted(LATER, None)));
        }
        let trust = node.open(mode, reachable).unwrap();
        assert_eq!(trust.state().mode, expected);
        let checked = trust.check_at(Digest::of(b"x"), 1, "x", Some(time(NOW)));
        assert_eq!(checked.is_err(), expected == Mode::Enforce);
    }
}

#[test]
fn a_damaged_file_lets_no_model_and_no_root_in_and_a_crash_leaves_a_whole_one() {
    let node = Node::new();
    drop(node.trusting(&trusted(LATER, Some(NOW))));
    let path = node.folder().join("trusted");
    let good = fs::read(&path).unwrap();
    // A write that never ended, and a check that never ended.
    fs::write(path.with_extension("new"), &good[..100]).unwrap();
    fs::create_dir(node.folder().join("scratch")).unwrap();
    fs::write(node.folder().join("scratch/timestamp.json"), b"{}").unwrap();
    assert_eq!(node.open(None, false).unwrap().state().known_time, Some(time(NOW)));
    for at in [0, 10, 14, 20, good.len() / 2, good.len() - 3] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        is_closed(&node.open(None, false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), bad, "{at}: it is left as it is");
    }
    for length in (0..good.len() - 1).step_by(41) {
        fs::write(&path, &good[..length]).unwrap();
        is_closed(&node.open(None, false).unwrap());
    }
    // Whoever says that signatures do not matter has said it.
    let trust = node.open(Some(Mode::Off), false).unwrap();
    trust.check_at(bundle(), 8, "x", Some(time(NOW))).unwrap();
    drop(trust);
    fs::write(&path, &good).unwrap();
    assert_eq!(node.open(None, false).unwrap().state().known_time, Some(time(NOW)));
}

/// The node serves what it has, and takes neither models nor roots.
fn is_closed(trust: &Trust) {
    assert_eq!(trust.state().mode, Mode::Enforce);
    let root = file("root", LATER[0], json!({"consistent_snapshot": true, "keys": {}, "roles": {}}));
    let refused = [
        trust.check_at(bundle(), 8, "x", Some(time(NOW))),
        trust.check_back(bundle(), 8, "x"),
        trust.install(root.as_bytes(), "x"),
        trust.update(Err(TrustError::NoRoot), "x"),
        trust.reset_clock("x"),
    ];
    for error in refused {
        assert!(matches!(error, Err(TrustError::Damaged { .. })), "{error:?}");
    }
}

#[test]
fn a_clock_that_was_ahead_is_forgiven_by_an_operator_of_the_machine() {
    let node = Node::new();
    let trust = node.trusting(&trusted(LATER, Some(NOW)));
    // A deployment while the clock is 20 days ahead.
    trust.check_at(bundle(), 8, "x", Some(time("2026-06-21T12:00:00Z"))).unwrap();
    let refused = trust.check_at(bundle(), 8, "x", Some(time(NOW))).unwrap_err();
    assert!(refused.to_string().contains("agent-cli trust reset-clock"), "{refused}");
    let unset = trust.reset_clock_at(time("1970-01-01T00:05:00Z"), "user 0");
    assert!(matches!(unset, Err(TrustError::ClockNotSet { .. })), "{unset:?}");
    trust.reset_clock_at(time(NOW), "user 0").unwrap();
    trust.check_at(bundle(), 8, "x", Some(time(NOW))).unwrap();
    // It is kept, and only ever goes back to a clock that is behind.
    drop(trust);
    let trust = node.open(None, false).unwrap();
    trust.reset_clock_at(time("2026-06-05T00:00:00Z"), "user 0").unwrap();
    assert_eq!(trust.state().known_time, Some(time(NOW)));
    let audit = fs::read_dir(node.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let audit: String = audit.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert_eq!(audit.matches("reset the latest known time 2026-06-21T12:00:00Z").count(), 2, "{audit}");
}
