//! Blobs that hold other bytes than they did, and a record that cannot be read.

use super::*;

fn whole(store: &Store, sent: &Sent) -> bool {
    store.plan(&sent.manifest).unwrap().missing.is_empty()
}

/// Writes other bytes into the file of a blob, of the same inode and size.
fn damage(store: &Store, bytes: &[u8]) {
    let path = store.blob(&Digest::of(bytes));
    fs::write(path, vec![0; bytes.len()]).unwrap();
}

#[test]
fn a_plan_hashes_what_is_there_and_a_damaged_blob_is_missing_and_is_replaced_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(1));
    sent.send_all(&store);
    assert!(whole(&store, &sent));
    let blob = &sent.blobs[1];
    // As the running engine has it mapped.
    let mapped = std::fs::File::open(store.blob(&Digest::of(blob))).unwrap();
    damage(&store, blob);
    let missing = store.plan(&sent.manifest).unwrap().missing;
    let expected = Missing { digest: Digest::of(blob), size: blob.len() as u64, received: 0 };
    assert_eq!(missing, [expected]);
    let reason = store.damage_of(&sent.digest()).unwrap();
    assert!(reason.contains("weights/a.bin") && reason.contains("holds other bytes"), "{reason}");
    assert_eq!(store.models()[0].kept.failure.as_ref(), Some(&reason));
    assert!(results(dir.path()).last().unwrap().starts_with("\"check\": \"weights/a.bin"));
    sent.send(&store, blob).unwrap();
    assert!(whole(&store, &sent));
    assert!(!disk::is_at(&mapped, &store.blob(&Digest::of(blob))).unwrap(), "the file that is mapped is left alone");
    // Known from the record, too, until all of it was verified.
    drop(store);
    let told = Store::told(dir.path()).unwrap();
    assert_eq!((told.damaged.len(), told.damaged[0].bundle, told.damaged[0].active), (1, sent.digest(), false));
    let store = open(dir.path());
    assert_eq!(store.damage_of(&sent.digest()), Some(reason));
    store.advance(sent.digest(), Stage::Verified, WHO).unwrap();
    assert_eq!((store.models()[0].kept.failure.clone(), Store::told(dir.path()).unwrap().damaged.len()), (None, 0));
}

#[test]
fn a_blob_that_was_cut_short_a_damaged_manifest_and_a_shared_blob_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first, second) = (open(dir.path()), sent(1), sent(2));
    first.send_all(&store);
    second.send_all(&store);
    let short = &first.blobs[1];
    let file = std::fs::OpenOptions::new().write(true).open(store.blob(&Digest::of(short))).unwrap();
    file.set_len(10).unwrap();
    assert!(store.check(first.digest()).unwrap().contains("the file has 10 bytes instead of 5000"));
    assert_eq!((store.damage_of(&second.digest()), store.check(second.digest())), (None, None));
    damage(&store, &second.manifest);
    assert!(store.check(second.digest()).unwrap().starts_with("manifest: "));
    second.send(&store, &second.manifest).unwrap();
    first.send(&store, short).unwrap();
    damage(&store, &first.blobs[2]);
    assert_eq!(store.plan(&first.manifest).unwrap().missing.len(), 1);
    assert_eq!(store.damage_of(&first.digest()), store.damage_of(&second.digest()), "both have it");
}

#[test]
fn a_blob_that_was_replaced_while_it_was_hashed_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(1));
    sent.send_all(&store);
    let blob = &sent.blobs[1];
    damage(&store, blob);
    let part = store.parts(sent.digest()).into_iter().find(|part| part.what == "weights/a.bin").unwrap();
    let mut again = true;
    let found = store.check_part(&part, &mut |_| {
        if std::mem::take(&mut again) {
            sent.send(&store, blob).unwrap();
        }
        true
    });
    assert_eq!((found.unwrap(), store.damage_of(&sent.digest())), (Checked::Unsure, None));
    assert!(whole(&store, &sent));
}

#[test]
fn a_blob_that_is_missing_is_damage_to_the_models_that_were_whole_with_it_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, coming) = (open(dir.path()), sent(2));
    let model = prepare(&store, 1);
    coming.send(&store, &coming.manifest).unwrap();
    assert_eq!((store.check(coming.digest()), store.check(model)), (None, None), "one is still being received");
    // Both models have it.
    fs::remove_file(store.blob(&Digest::of(&coming.blobs[2]))).unwrap();
    let reason = store.check(model).unwrap();
    assert!(reason.starts_with("weights/b.bin: ") && reason.ends_with("the file is missing"), "{reason}");
    assert_eq!((store.damage_of(&model), store.damage_of(&coming.digest())), (Some(reason.clone()), None));
    assert_eq!((store.stage(&model), store.check(model)), (Some(Stage::Received), None));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.damage_of(&model), Some(reason));
    coming.send(&store, &coming.blobs[2]).unwrap();
    store.found_whole(model, WHO).unwrap();
    assert_eq!((store.damage_of(&model), store.stage(&model)), (None, Some(Stage::Verified)));
    assert_eq!(Store::told(dir.path()).unwrap().damaged.len(), 0);
    // So is a missing manifest, and a verification finds both.
    fs::remove_file(store.blob(&model)).unwrap();
    assert!(store.verify(model, WHO, &mut |_| {}).is_err());
    assert!(store.damage_of(&model).unwrap().starts_with("manifest: "));
}

#[test]
fn blobs_of_a_directory_that_is_gone_are_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (state, aside) = (dir.path().join("state"), dir.path().join("aside"));
    let store = open(&state);
    let model = prepare(&store, 1);
    let parts = store.parts(model);
    fs::rename(&state, &aside).unwrap();
    for part in &parts {
        assert_eq!(store.check_part(part, &mut |_| true).unwrap(), Checked::Absent);
    }
    fs::rename(&aside, &state).unwrap();
    assert_eq!((store.check(model), store.damage_of(&model)), (None, None));
}

/// `crates/bundle` and `crates/runtime` have no crate of ours in common.
#[test]
fn what_is_read_and_what_is_mapped_are_unreadable_for_the_same_errors() {
    /// `madvise` alone fails so.
    const EFAULT: i32 = 14;
    let mut unreadable = 0;
    for code in (1..=200).filter(|code| *code != EFAULT) {
        let error = || std::io::Error::from_raw_os_error(code);
        let mapped = recurve_runtime::WeightsError::Io { path: "x".into(), source: error() };
        assert_eq!(recurve_bundle::is_unreadable(&error()), mapped.is_unreadable(), "{}", error());
        unreadable += usize::from(mapped.is_unreadable());
    }
    assert_eq!(unreadable, 4);
}

#[test]
fn damage_is_known_where_the_disk_takes_no_more_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(1));
    sent.send_all(&store);
    damage(&store, &sent.blobs[1]);
    fs::create_dir(dir.path().join("models.new")).unwrap();
    assert!(store.check(sent.digest()).is_some() && store.damage_of(&sent.digest()).is_some());
    assert!(!whole(&store, &sent));
}

#[test]
fn a_damaged_model_is_not_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [first, second] = [1, 2].map(|seed| prepare(&store, seed));
    for model in [first, second] {
        store.activate(model, WHO).unwrap();
        store.confirm(model, WHO).unwrap();
    }
    damage(&store, &sent(1).blobs[1]);
    store.check(first);
    assert_eq!((store.active(), store.previous()), (Some(second), None));
    damage(&store, &sent(2).blobs[1]);
    store.check(second);
    assert_eq!((store.active(), store.stage(&second)), (Some(second), Some(Stage::Received)));
}

/// Two models that proved themselves, a third on probation, a fourth that was removed.
fn life(dir: &Path) -> [Digest; 4] {
    let store = open(dir);
    let models = [1, 2, 3, 4].map(|seed| prepare(&store, seed));
    for model in &models[..3] {
        store.activate(*model, WHO).unwrap();
        if *model != models[2] {
            store.confirm(*model, WHO).unwrap();
        }
    }
    store.remove(models[3], WHO).unwrap();
    models
}

#[test]
fn a_damaged_or_missing_record_is_rebuilt_as_it_was_and_the_damaged_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let models = life(dir.path());
    let record = dir.path().join("models.json");
    let state = |store: &Store| {
        let stages: Vec<_> = store.models().iter().map(|model| (model.bundle, model.kept.stage)).collect();
        (store.active(), store.previous(), store.on_probation(&models[2]), stages)
    };
    let before = state(&open(dir.path()));
    assert_eq!((before.0, before.1, before.2, before.3.len()), (Some(models[2]), Some(models[1]), true, 3));
    for (number, content) in [(1, &b""[..]), (2, b"{"), (3, b"\0\0\0\0"), (4, b"{\"format\":1}"), (5, b"[]")] {
        fs::write(&record, content).unwrap();
        let store = open(dir.path());
        assert!(store.rebuilt().unwrap().contains("3 models were found"), "{content:?}");
        assert_eq!(state(&store), before, "{content:?}");
        assert_eq!(fs::read(dir.path().join(format!("models.json.damaged-{number}"))).unwrap(), content);
        drop(store);
        assert_eq!(open(dir.path()).rebuilt(), None, "once");
    }
    assert_eq!(Store::told(dir.path()).unwrap().kept_aside.len(), 5);
    fs::remove_file(&record).unwrap();
    let store = open(dir.path());
    assert!(store.rebuilt().unwrap().starts_with("models.json was missing"));
    assert_eq!(state(&store), before);
    assert_eq!(open(&dir.path().join("new")).rebuilt(), None, "a new directory");
}

#[test]
fn without_the_audit_the_models_are_there_and_none_is_active() {
    let dir = tempfile::tempdir().unwrap();
    let models = life(dir.path());
    fs::write(dir.path().join("models.json"), b"").unwrap();
    fs::write(dir.path().join("audit.jsonl"), b"\0\0\0\0\n\xFF\n").unwrap();
    let store = open(dir.path());
    assert_eq!((store.active(), store.models().len()), (None, 3));
    assert!(whole(&store, &sent(1)), "no blob was deleted");
    assert_eq!(store.stage(&models[0]), Some(Stage::Received));
}

#[test]
fn a_record_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path());
    let newer = "{\"format\":2,\"chosen\":[],\"more\":1}";
    fs::write(dir.path().join("models.json"), newer).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
    assert_eq!(fs::read_to_string(dir.path().join("models.json")).unwrap(), newer);
}

#[test]
fn a_directory_that_was_removed_or_replaced_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (state, aside) = (dir.path().join("state"), dir.path().join("aside"));
    let store = open(&state);
    assert!(store.is_in_place());
    fs::rename(&state, &aside).unwrap();
    assert!(!store.is_in_place());
    let other = open(&state);
    assert!(!store.is_in_place() && other.is_in_place());
    drop(other);
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    assert!(store.is_in_place());
}
