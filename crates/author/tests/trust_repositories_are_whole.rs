//! A repository of signatures is whole at every instant, and takes keys that others made.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recurve_author::trust::{Changed, Init, Repository, Role, TrustError, published};
use tough::schema::{Root, Signed, Snapshot, Timestamp};

/// What `openssl genpkey -algorithm ed25519` writes.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEII54j6pOytBmEETpCZMmrRJTRY9reLlSiDpQqgR2NlBS
-----END PRIVATE KEY-----
";
/// What `openssl pkey -pubout` makes of it.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/UWr7Fsh4wyhddQ2H4B2L4Zgb/j6VPLB1aGH4Ur+ymM=
-----END PUBLIC KEY-----
";
/// A key of another kind.
const OTHER_KIND: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2rygbcIx6Gvo7dot
Bi/tcAUiuUD48eXIZff8L+6G+s2hRANCAAQzsiKjXBIYUgXY++kb+Kca6/W6YMo3
HihLCYQ6fPmE9J8A5fgAi/VleRYfnbZ6r9lfvyJoQ4Lg5qJ6bWJfmBhx
-----END PRIVATE KEY-----
";
/// A key behind a password.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhY24mYoJNhlgICCAAw
-----END ENCRYPTED PRIVATE KEY-----
";

fn init(dir: &Path) -> Changed {
    Repository::init(dir, Vec::new(), &Init::default()).unwrap().1
}

fn open(dir: &Path) -> Result<Repository, TrustError> {
    Repository::open(dir, Vec::new(), &BTreeMap::new())
}

/// Parses what is published, as whoever receives it does, and follows it from the first root down.
fn verified(dir: &Path) -> Root {
    let files: BTreeMap<String, Vec<u8>> = published(dir).unwrap().into_iter().collect();
    let root = |version: u64| -> Option<Signed<Root>> {
        Some(serde_json::from_slice(files.get(&format!("{version}.root.json"))?).unwrap())
    };
    let mut trusted = root(1).unwrap();
    trusted.signed.verify_role(&trusted).unwrap();
    while let Some(next) = root(trusted.signed.version.get() + 1) {
        trusted.signed.verify_role(&next).unwrap();
        next.signed.verify_role(&next).unwrap();
        trusted = next;
    }
    let timestamp: Signed<Timestamp> = serde_json::from_slice(&files["timestamp.json"]).unwrap();
    trusted.signed.verify_role(&timestamp).unwrap();
    let version = timestamp.signed.meta["snapshot.json"].version;
    let snapshot: Signed<Snapshot> = serde_json::from_slice(&files[&format!("{version}.snapshot.json")]).unwrap();
    trusted.signed.verify_role(&snapshot).unwrap();
    let version = snapshot.signed.meta["targets.json"].version;
    let targets: Signed<tough::schema::Targets> =
        serde_json::from_slice(&files[&format!("{version}.targets.json")]).unwrap();
    trusted.signed.verify_role(&targets).unwrap();
    assert_eq!(files.len() as u64, 3 + trusted.signed.version.get(), "nothing else is published");
    trusted.signed
}

#[test]
fn after_every_change_all_of_it_verifies() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    assert_eq!(verified(dir.path()).keys.len(), 4);
    for (role, added) in Role::ALL.into_iter().zip(0..) {
        open(dir.path()).unwrap().rotate(role, None).unwrap();
        assert_eq!(verified(dir.path()).keys.len(), 4 + added, "{role}: the old key is gone");
        open(dir.path()).unwrap().add_key(role, None, Some(2)).unwrap();
        open(dir.path()).unwrap().refresh(&[role]).unwrap();
        verified(dir.path());
    }
    let root = verified(dir.path());
    assert_eq!((root.keys.len(), root.version.get()), (8, 10));
    assert!(root.roles.values().all(|keys| keys.threshold.get() == 2));
}

/// A repository in which the metadata of one role have expired.
fn expired(dir: &Path, role: Role) {
    let validity = BTreeMap::from([(role, Duration::from_secs(1))]);
    Repository::init(dir, Vec::new(), &Init { validity, ..Init::default() }).unwrap();
    let has_expired = || open(dir).unwrap().roles().unwrap().iter().any(|state| state.role == role && state.expired);
    while !has_expired() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nothing_is_signed_beside_metadata_that_have_expired() {
    use Role::{Root, Snapshot, Targets, Timestamp};
    for (role, refused, allowed) in [
        (Root, vec![vec![Snapshot], vec![Targets], vec![Timestamp]], vec![Root]),
        (Targets, vec![vec![Snapshot], vec![Timestamp], vec![Timestamp, Root]], vec![Targets]),
        (Snapshot, vec![vec![Timestamp]], vec![Snapshot]),
        (Timestamp, vec![], vec![Timestamp]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        expired(dir.path(), role);
        let before = published(dir.path()).unwrap();
        for roles in refused {
            let error = open(dir.path()).unwrap().refresh(&roles).unwrap_err();
            assert!(matches!(&error, TrustError::Expired { role: named, .. } if *named == role), "{roles:?}: {error}");
            assert!(error.to_string().contains(&format!("trust refresh --dir {} --role {role}", dir.path().display())));
        }
        assert_eq!(published(dir.path()).unwrap(), before, "{role}: nothing was changed");
        let later = BTreeMap::from([(role, Duration::from_secs(900))]);
        Repository::open(dir.path(), Vec::new(), &later).unwrap().refresh(&allowed).unwrap();
        assert!(open(dir.path()).unwrap().roles().unwrap().iter().all(|state| !state.expired));
    }
}

#[test]
fn keys_of_openssl_are_taken_and_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (private, public) = (write("private.pem", PRIVATE), write("public.pem", PUBLIC));
    let add = |path: &PathBuf| open(dir.path()).unwrap().add_key(Role::Targets, Some(path), None);
    add(&public).unwrap();
    assert!(matches!(add(&private), Err(TrustError::HasKey { .. })), "both are one key");
    // With its private part among the keys it signs.
    fs::copy(&private, dir.path().join("keys/own.pem")).unwrap();
    open(dir.path()).unwrap().refresh(&[Role::Targets]).unwrap();
    let targets = published(dir.path()).unwrap().into_iter().find(|(name, _)| name.ends_with("targets.json")).unwrap();
    let targets: Signed<tough::schema::Targets> = serde_json::from_slice(&targets.1).unwrap();
    assert_eq!(targets.signatures.len(), 2);
    for (name, text) in [("kind.pem", OTHER_KIND), ("encrypted.pem", ENCRYPTED), ("text.pem", "key"), ("none.pem", "")]
    {
        let refused = add(&write(name, text)).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("allowed is an Ed25519 key in PEM"), "{refused}");
    }
    let threshold = open(dir.path()).unwrap().add_key(Role::Root, None, Some(3)).unwrap_err();
    assert!(matches!(threshold, TrustError::Threshold { keys: 2, .. }), "{threshold}");
}

#[test]
fn one_at_a_time_changes_it_and_what_was_cut_off_is_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let held = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(TrustError::Locked { .. })));
    drop(held);
    // A change that a power cut ended: its folder is there, and was never renamed.
    fs::create_dir(dir.path().join(".metadata.partial-x")).unwrap();
    fs::write(dir.path().join(".metadata.partial-x/2.root.json"), "{").unwrap();
    open(dir.path()).unwrap().refresh(&[Role::Timestamp]).unwrap();
    verified(dir.path());
    // One that cannot be completed changes nothing.
    let before = published(dir.path()).unwrap();
    fs::remove_dir_all(dir.path().join("keys")).unwrap();
    let refreshed = open(dir.path()).unwrap().refresh(&[Role::Timestamp]).unwrap_err();
    let rotated = open(dir.path()).unwrap().rotate(Role::Root, None).unwrap_err();
    for failed in [refreshed, rotated] {
        assert!(matches!(failed, TrustError::NoKeys { .. }), "{failed}");
    }
    assert_eq!(published(dir.path()).unwrap(), before);
    assert!(matches!(Repository::init(dir.path(), Vec::new(), &Init::default()), Err(TrustError::Exists { .. })));
    assert!(matches!(open(&dir.path().join("none")), Err(TrustError::Missing { .. })));
}
