//! Each attack that the TUF specification lists, for every role: refused with its reason; what is trusted stays as it is,
//! byte for byte, and the model serves on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use recurve_bundle::Bundle;
use recurve_proto::reason;
use recurve_tests::client::{connect, generate, greedy, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::forge::{Files, Forge, Key, ROLES, file, install, update};
use recurve_tests::process::{agent_cli, run};
use recurve_tests::world::{self, path};
use serde_json::json;

/// What is sent instead of the next state, made from the present one, and how it is refused.
struct Attack {
    name: String,
    files: Box<dyn Fn(&Forge) -> Files>,
    reason: &'static str,
}

fn attack(name: impl Into<String>, reason: &'static str, files: impl Fn(&Forge) -> Files + 'static) -> Attack {
    Attack { name: name.into(), files: Box::new(files), reason }
}

/// The state that would be next.
fn next(now: &Forge) -> Forge {
    let mut next = now.next();
    next.new_root();
    next
}

/// Arbitrary software, and the wrong key: signed by somebody whom the root does not name for this.
fn wrong_keys() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for role in ROLES {
        attacks.push(attack(format!("{role}: signed by a stranger"), reason::TRUST_INVALID, move |now| {
            let mut next = next(now);
            next.document(role).keys = vec![Key::new(), Key::new()];
            next.files()
        }));
        attacks.push(attack(format!("{role}: not signed"), reason::TRUST_INVALID, move |now| {
            let mut next = next(now);
            next.document(role).keys.clear();
            next.files()
        }));
        attacks.push(attack(format!("{role}: signed by another role"), reason::TRUST_INVALID, move |now| {
            let mut next = next(now);
            let other = if role == "timestamp" { "snapshot" } else { "timestamp" };
            next.document(role).keys = next.document(other).keys.clone();
            next.files()
        }));
        // What others name by its digest is another file before it is a forged one.
        let named = matches!(role, "snapshot" | "targets");
        let expected = if named { reason::TRUST_MIXED } else { reason::TRUST_INVALID };
        attacks.push(attack(format!("{role}: changed after it was signed"), expected, move |now| {
            let mut files = next(now).files();
            let bytes = &mut file(&mut files, role).1;
            *bytes = String::from_utf8(bytes.clone()).unwrap().replacen("\"expires\":\"2", "\"expires\":\"3", 1).into();
            files
        }));
    }
    attacks.push(attack("root: the new keys alone", reason::TRUST_INVALID, |now| {
        let mut next = now.next();
        next.rotate("root");
        next.document("root").keys.drain(..2);
        next.files()
    }));
    attacks.push(attack("root: the old keys alone", reason::TRUST_INVALID, |now| {
        let mut next = now.next();
        next.rotate("root");
        next.document("root").keys.truncate(2);
        next.files()
    }));
    attacks
}

/// Key compromise below the threshold: one of the two keys that are needed.
fn too_few_keys() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for role in ROLES {
        attacks.push(attack(format!("{role}: one key of two"), reason::TRUST_INVALID, move |now| {
            let mut next = next(now);
            next.document(role).keys.truncate(1);
            next.files()
        }));
        attacks.push(attack(format!("{role}: one key twice"), reason::TRUST_INVALID, move |now| {
            let mut next = next(now);
            let key = next.document(role).keys[0].clone();
            next.document(role).keys = vec![key.clone(), key];
            next.files()
        }));
    }
    attacks
}

/// Roll-back: what was believed once and is not the newest any more, or says that it is older.
fn rolled_back() -> Vec<Attack> {
    let mut attacks = vec![
        attack("root: an older one under the next name", reason::TRUST_ROLLED_BACK, |now| {
            let mut next = next(now);
            next.document("root").version -= 1;
            let mut files = next.files();
            // Both have the same name now: the one that is believed, and the one that claims to follow it.
            file(&mut files, "root").0 = format!("{}.root.json", next.roots.len());
            files
        }),
        attack("timestamp: the whole state before", reason::TRUST_ROLLED_BACK, |now| {
            let mut before = now.clone();
            for role in ["targets", "snapshot", "timestamp"] {
                before.document(role).version -= 1;
            }
            before.files()
        }),
    ];
    for role in ["timestamp", "snapshot", "targets"] {
        attacks.push(attack(format!("{role}: an older version"), reason::TRUST_ROLLED_BACK, move |now| {
            let mut next = next(now);
            next.document(role).version -= 2;
            next.files()
        }));
    }
    attacks
}

/// Fast-forward of the root, which can only go one by one. Of the other roles it is signed by who may: what follows is the
/// way back from it, in a test of its own.
fn fast_forward() -> Vec<Attack> {
    vec![
        attack("root: a version far ahead", reason::TRUST_MIXED, |now| {
            let mut next = next(now);
            next.document("root").version = u64::from(u32::MAX);
            next.files()
        }),
        attack("root: a version far ahead under the next name", reason::TRUST_MIXED, |now| {
            let mut next = next(now);
            let name = format!("{}.root.json", next.document("root").version);
            next.document("root").version = u64::from(u32::MAX);
            let mut files = next.files();
            file(&mut files, "root").0 = name;
            files
        }),
    ]
}

/// Indefinite freeze: metadata that have expired.
fn frozen() -> Vec<Attack> {
    let expired = |role: &'static str| {
        attack(format!("{role}: expired"), reason::TRUST_EXPIRED, move |now| {
            let mut next = next(now);
            next.document(role).expires = -1;
            next.files()
        })
    };
    ROLES.into_iter().map(expired).collect()
}

/// Mix-and-match: files that are good each, and were never one state.
fn mixed() -> Vec<Attack> {
    let mut attacks = vec![
        attack("root: one is left out", reason::TRUST_MIXED, |now| {
            let mut next = next(now);
            next.new_root();
            let mut files = next.files();
            files.retain(|(name, _)| *name != format!("{}.root.json", next.roots.len() - 1));
            files
        }),
        attack("timestamp: of the state before", reason::TRUST_MIXED, |now| {
            let mut files = now.next().files();
            *file(&mut files, "timestamp") = file(&mut now.files(), "timestamp").clone();
            files
        }),
    ];
    for role in ["snapshot", "targets"] {
        attacks.push(attack(format!("{role}: of the state before"), reason::TRUST_MIXED, move |now| {
            let mut files = now.next().files();
            *file(&mut files, role) = file(&mut now.files(), role).clone();
            files
        }));
        attacks.push(attack(format!("{role}: another one of the same version"), reason::TRUST_MIXED, move |now| {
            let mut files = now.next().files();
            let mut other = now.next();
            other.bundles.clear();
            other.document(role).expires += 7;
            *file(&mut files, role) = file(&mut other.files(), role).clone();
            // As long as the other, so that the digest alone tells.
            let length = file(&mut now.next().files(), role).1.len();
            file(&mut files, role).1.resize(length, b' ');
            files
        }));
    }
    attacks
}

/// Endless data: more than this daemon takes, or than the file that names it says.
fn endless() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for role in ROLES {
        attacks.push(attack(format!("{role}: more than is ever needed"), reason::TRUST_TOO_LARGE, move |now| {
            let mut files = next(now).files();
            file(&mut files, role).1.resize(3 << 20, b' ');
            files
        }));
    }
    for role in ["snapshot", "targets"] {
        attacks.push(attack(format!("{role}: longer than is said"), reason::TRUST_TOO_LARGE, move |now| {
            let mut files = next(now).files();
            file(&mut files, role).1.push(b' ');
            files
        }));
    }
    attacks.push(attack("root: as many as fit", reason::TRUST_TOO_LARGE, |now| {
        let mut files = next(now).files();
        files.extend((100..1200).map(|version| (format!("{version}.root.json"), b"{}".to_vec())));
        files
    }));
    attacks
}

/// Extraneous dependencies: metadata beside those of the four roles.
fn extraneous() -> Vec<Attack> {
    vec![
        attack("targets: a delegated role", reason::TRUST_INVALID, |now| {
            let mut next = next(now);
            next.document("targets").change = |signed| {
                let role = json!({"name": "other", "keyids": [], "threshold": 1, "paths": ["*"], "terminating": false});
                signed["delegations"] = json!({"keys": {}, "roles": [role]});
            };
            next.files()
        }),
        attack("snapshot: another file", reason::TRUST_INVALID, |now| {
            let mut next = next(now);
            next.document("snapshot").change = |signed| signed["meta"]["other.json"] = json!({"version": 1});
            next.files()
        }),
        attack("timestamp: another file", reason::TRUST_INVALID, |now| {
            let mut next = next(now);
            next.document("timestamp").change = |signed| signed["meta"]["other.json"] = json!({"version": 1});
            next.files()
        }),
        attack("root: without a role", reason::TRUST_INVALID, |now| {
            let mut next = next(now);
            next.document("root").change = |signed| drop(signed["roles"].as_object_mut().unwrap().remove("snapshot"));
            next.files()
        }),
        attack("root: files without versions", reason::TRUST_INVALID, |now| {
            let mut next = next(now);
            next.document("root").change = |signed| signed["consistent_snapshot"] = json!(false);
            let mut files = next.files();
            for role in ["snapshot", "targets"] {
                let bytes = file(&mut files, role).1.clone();
                files.push((format!("{role}.json"), bytes));
            }
            files
        }),
        attack("a file beside those", reason::TRUST_INVALID, |now| {
            let mut files = next(now).files();
            files.push(("../../models.json".to_owned(), b"{}".to_vec()));
            files
        }),
        attack("a second snapshot", reason::TRUST_INVALID, |now| {
            let mut files = next(now).files();
            files.push(file(&mut now.files(), "snapshot").clone());
            files
        }),
    ]
}

/// Every file of a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

async fn served(daemon: &Daemon) -> String {
    generate(&connect(daemon).await, greedy(&[2, 9, 30], 3)).await.unwrap().finish.bundle
}

/// A daemon that serves a signed model, and the state that it believes.
async fn trusting(state: &Path) -> (Daemon, Forge) {
    let bundle = world::tiny("int4");
    let daemon = Setup::managed(state).start();
    let mut forge = Forge::new(&[&Bundle::open(&bundle).unwrap()]);
    install(&daemon, forge.root()).await.unwrap();
    for _ in 0..4 {
        forge = forge.next();
    }
    forge.new_root();
    update(&daemon, forge.files()).await.unwrap();
    run(&mut agent_cli(&["deploy", path(&bundle), "--on", &daemon.address])).success();
    (daemon, forge)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_refused_for_every_role() {
    let state = tempfile::tempdir().unwrap();
    let (daemon, forge) = trusting(state.path()).await;
    let model = Bundle::open(&world::tiny("int4")).unwrap().digest().to_string();
    let trust = state.path().join("trust");
    let before = content(&trust);
    let attacks =
        [wrong_keys(), too_few_keys(), rolled_back(), fast_forward(), frozen(), mixed(), endless(), extraneous()];
    for attack in attacks.into_iter().flatten() {
        let name = &attack.name;
        let refused = match update(&daemon, (attack.files)(&forge)).await {
            Ok(state) => panic!("{name}: taken: {state:?}"),
            Err(status) => status,
        };
        assert_eq!(told(&refused).1, attack.reason, "{name}: {}", refused.message());
        assert!(content(&trust) == before, "{name}: what is trusted has changed");
        assert_eq!(served(&daemon).await, model, "{name}");
    }
    // The same without an attack is taken.
    let taken = update(&daemon, next(&forge).files()).await.unwrap();
    let version = |role: &str| taken.roles.iter().find(|state| state.role == role).unwrap().version;
    assert_eq!(ROLES.map(version), [3, 6, 6, 6]);
    assert!(content(&trust) != before);
    let audit = fs::read_to_string(state.path().join("audit.jsonl")).unwrap();
    assert!(audit.lines().filter(|line| line.contains("update trust")).count() > 50, "{audit}");
    assert!(daemon.stop().success());
    assert_eq!(served(&Setup::managed(state.path()).start()).await, model);
}

/// Whoever has the keys of a role may sign any version. New keys, said by the root, undo that (specification, 5.3.11).
#[tokio::test(flavor = "multi_thread")]
async fn after_a_fast_forward_new_keys_bring_the_versions_back() {
    for role in ["timestamp", "snapshot", "targets"] {
        let state = tempfile::tempdir().unwrap();
        let (daemon, forge) = trusting(state.path()).await;
        let mut forward = forge.next();
        // Who names a version far ahead needs the keys of those that name it.
        for above in ["targets", "snapshot", "timestamp"].iter().skip_while(|above| **above != role) {
            forward.document(above).version += 1;
        }
        forward.document(role).version = 1 << 40;
        update(&daemon, forward.files()).await.unwrap();
        let mut recovered = forge.next().next().next();
        let refused = update(&daemon, recovered.files()).await.unwrap_err();
        assert_eq!(told(&refused).1, reason::TRUST_ROLLED_BACK, "{role}: {}", refused.message());
        for rotated in ["targets", "snapshot", "timestamp"].into_iter().skip_while(|rotated| *rotated != role) {
            recovered.rotate(rotated);
        }
        update(&daemon, recovered.files()).await.unwrap_or_else(|error| panic!("{role}: {error:?}"));
        // What the old keys signed is refused from then on.
        let refused = update(&daemon, forward.next().files()).await.unwrap_err();
        assert_eq!(told(&refused).1, reason::TRUST_INVALID, "{role}: {}", refused.message());
        assert!(daemon.stop().success());
    }
}

/// A root that is no root is not installed.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_root_has_to_be_whole() {
    let state = tempfile::tempdir().unwrap();
    let daemon = Setup::managed(state.path()).start();
    let forge = Forge::new(&[]);
    let changed = |change: fn(&mut Forge)| {
        let mut forge = forge.clone();
        change(&mut forge);
        forge.root()
    };
    for (name, root, expected) in [
        ("nothing", Vec::new(), reason::TRUST_INVALID),
        ("no JSON", b"{".to_vec(), reason::TRUST_INVALID),
        ("a timestamp", forge.files().remove(1).1, reason::TRUST_INVALID),
        ("not signed", changed(|forge| forge.document("root").keys.clear()), reason::TRUST_INVALID),
        ("one key of two", changed(|forge| forge.document("root").keys.truncate(1)), reason::TRUST_INVALID),
        (
            "a stranger's",
            changed(|forge| forge.document("root").keys = vec![Key::new(), Key::new()]),
            reason::TRUST_INVALID,
        ),
        ("endless", vec![b' '; 1 << 20], reason::TRUST_TOO_LARGE),
    ] {
        let refused = install(&daemon, root).await.unwrap_err();
        assert_eq!(told(&refused).1, expected, "{name}: {}", refused.message());
    }
    let refused = update(&daemon, forge.files()).await.unwrap_err();
    assert_eq!(told(&refused).1, reason::NO_TRUST_ROOT, "{}", refused.message());
    install(&daemon, forge.root()).await.unwrap();
    let refused = install(&daemon, Forge::new(&[]).root()).await.unwrap_err();
    assert_eq!(told(&refused).1, reason::TRUST_INSTALLED, "{}", refused.message());
    assert!(daemon.stop().success());
}
