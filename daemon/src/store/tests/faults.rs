//! Everything that can go wrong on the disk, at every step of a deployment: the system refuses, half is written, the
//! process ends, the power is cut.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::fault::{self, Kind};
use super::*;

const REASON: &str = "it failed its probe";

/// A deployment from wherever an earlier one was cut off: what is missing is sent, then the model is prepared and made the
/// active one.
fn deploy(store: &Arc<Store>, sent: &Sent) -> Result<(), StoreError> {
    let plan = store.plan(&sent.manifest)?;
    for missing in plan.missing {
        let bytes = sent.all().find(|bytes| Digest::of(bytes) == missing.digest).unwrap();
        let mut incoming = store.receive(sent.digest(), missing.digest, missing.size, missing.received)?;
        for part in bytes[missing.received as usize..].chunks(1000) {
            incoming.write(Bytes::copy_from_slice(part))?;
        }
        incoming.finish(WHO)?;
    }
    store.prepared(sent.digest(), prepared(), WHO)?;
    store.activate(sent.digest(), WHO)
}

fn prepared() -> Prepared {
    Prepared { apart: 0.0, allowed: 1.0, tokens_per_second: 1.0, kernels: "scalar".to_owned() }
}

/// The second model comes, is removed again when it failed, and comes back.
fn life(store: &Arc<Store>, old: &Sent, new: &Sent) -> Result<(), StoreError> {
    deploy(store, new)?;
    store.count_start()?;
    store.settle()?;
    if store.active() == Some(new.digest()) {
        store.go_back(WHO, REASON)?;
    }
    assert_eq!(store.active(), Some(old.digest()));
    store.remove(new.digest(), WHO)?;
    deploy(store, new)
}

/// What holds whatever happened.
fn check(store: &Store, dir: &Path, old: &Sent, new: &Sent, context: &str) {
    for blob in fs::read_dir(dir.join(BLOBS)).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name, "{context}: a blob that is named is whole");
    }
    let active = store.active().unwrap_or_else(|| panic!("{context}: no model is active"));
    let served = [old, new].into_iter().find(|sent| sent.digest() == active).unwrap();
    assert_eq!(store.plan(&served.manifest).unwrap().missing, [], "{context}: the active model is whole");
    assert_eq!(store.plan(&old.manifest).unwrap().missing, [], "{context}: so is the one to go back to");
    let lines = lines(dir);
    let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{context}: no line is lost or doubled");
    // The state is what the last line says that tells of a change; refusals have lines, too.
    let changed = [("activate", "done"), ("roll back", REASON)];
    let last = lines.iter().rev().find(|line| changed.contains(&(&line.what, &line.result))).unwrap();
    let expected = if last.what == "activate" { last.bundle } else { Some(old.digest()) };
    assert_eq!(Some(active), expected, "{context}: {last:?}");
}

fn lines(dir: &Path) -> Vec<Line> {
    let text = fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder where syncing takes no time: thousands of times is long.
fn in_memory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs the life with this fault at step `at`; gives whether there is such a step.
fn with_fault(at: u64, kind: Kind) -> bool {
    let context = format!("{kind:?} at {at}");
    let dir = in_memory();
    let (old, new) = (sent(1), sent(2));
    let store = open(dir.path());
    deploy(&store, &old).unwrap();
    fault::arm(at, kind);
    let outcome = catch_unwind(AssertUnwindSafe(|| life(&store, &old, &new)));
    let steps = fault::disarm();
    let store = match kind {
        // The daemon goes on, and is asked again.
        Kind::Error | Kind::Short => store,
        Kind::Stop | Kind::PowerCut => {
            drop(store);
            open(dir.path())
        }
    };
    if steps > at {
        // A line of the audit that cannot be written is no reason to refuse.
        if matches!(kind, Kind::Stop | Kind::PowerCut) {
            assert!(outcome.is_err(), "{context}");
        }
        check_after_restart(&store, dir.path(), &old, &new, &context);
    }
    life(&store, &old, &new).unwrap_or_else(|error| panic!("{context}: asked again: {error}"));
    assert_eq!(store.active(), Some(new.digest()), "{context}");
    check_after_restart(&store, dir.path(), &old, &new, &context);
    steps > at
}

/// A daemon that lives may have lines of the audit that wait; one that is started has none.
fn check_after_restart(store: &Arc<Store>, dir: &Path, old: &Sent, new: &Sent, context: &str) {
    store.note("look", None, WHO, "done").unwrap();
    check(store, dir, old, new, context);
}

/// A panic that is part of the test says nothing.
fn quietly(work: impl FnOnce()) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        if !text.is_some_and(|text| text.starts_with("stopped at") || text.starts_with("power cut at")) {
            usual(info);
        }
    }));
    work();
}

#[test]
fn at_every_step_the_old_or_the_new_model_is_whole_and_the_deployment_goes_on() {
    quietly(|| {
        let mut steps = BTreeMap::new();
        for kind in [Kind::Error, Kind::Short, Kind::Stop, Kind::PowerCut] {
            let count = (0..).take_while(|&at| with_fault(at, kind)).count();
            steps.insert(format!("{kind:?}"), count);
        }
        println!("steps that failed: {steps:?}");
        assert!(steps.values().all(|&count| count > 80), "{steps:?}");
    });
}
