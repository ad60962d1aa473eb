//! The store on a real file system, with a real bundle's blobs.

use std::fs;

use bytes::Bytes;

use super::*;

mod damage;
mod faults;

const WHO: &str = "test";

/// A model of two layers that is no bundle beyond its manifest, and its blobs.
pub(crate) struct Sent {
    manifest: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

pub(crate) fn sent(seed: u8) -> Sent {
    let blobs = vec![b"{}".to_vec(), vec![seed; 5000], vec![7; 300]];
    let descriptor = |media: &str, bytes: &[u8], path: Option<&str>| {
        let annotations = path.map(|path| (recurve_bundle::ANNOTATION_FILEPATH.to_owned(), path.to_owned()));
        Descriptor {
            media_type: media.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: annotations.into_iter().collect(),
        }
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: recurve_bundle::MEDIA_MANIFEST.to_owned(),
        artifact_type: recurve_bundle::ARTIFACT_TYPE.to_owned(),
        config: descriptor(recurve_bundle::MEDIA_CONFIG, &blobs[0], None),
        layers: vec![
            descriptor(recurve_bundle::MEDIA_WEIGHT, &blobs[1], Some("weights/a.bin")),
            descriptor(recurve_bundle::MEDIA_WEIGHT, &blobs[2], Some("weights/b.bin")),
        ],
        annotations: Default::default(),
    };
    Sent { manifest: serde_json::to_vec(&manifest).unwrap(), blobs }
}

impl Sent {
    fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    fn send(&self, store: &Arc<Store>, bytes: &[u8]) -> Result<Taken, StoreError> {
        let mut incoming = store.receive(self.digest(), Digest::of(bytes), bytes.len() as u64, 0)?;
        for part in bytes.chunks(1000) {
            incoming.write(Bytes::copy_from_slice(part))?;
        }
        incoming.finish(WHO)
    }

    /// The manifest, then the blobs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Vec<u8>> {
        std::iter::once(&self.manifest).chain(&self.blobs)
    }

    fn send_all(&self, store: &Arc<Store>) {
        for bytes in self.all() {
            self.send(store, bytes).unwrap();
        }
    }
}

pub(crate) fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(dir).unwrap())
}

fn results(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(line).map(|line| format!("{}: {}", line["what"], line["result"])).collect()
}

#[test]
fn what_came_is_not_missing_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sent = sent(1);
    {
        let store = open(dir.path());
        let plan = store.plan(&sent.manifest).unwrap();
        assert_eq!((plan.bundle, plan.missing.len()), (sent.digest(), 4));
        assert_eq!(plan.bytes, sent.manifest.len() as u64 + 5302);
        assert!(store.models().is_empty(), "a plan changes nothing");
        sent.send_all(&store);
    }
    let store = open(dir.path());
    assert_eq!(store.plan(&sent.manifest).unwrap().missing, []);
    let models = store.models();
    assert_eq!((models[0].bundle, models[0].kept.stage, models[0].kept.bytes), (sent.digest(), Stage::Received, 5302));
    assert_eq!(results(dir.path()), ["\"receive\": \"done\""]);
}

#[test]
fn an_upload_goes_on_where_it_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(2));
    sent.send(&store, &sent.manifest).unwrap();
    let blob = &sent.blobs[1];
    let (digest, size) = (Digest::of(blob), blob.len() as u64);
    let mut first = store.receive(sent.digest(), digest, size, 0).unwrap();
    first.write(blob[..1234].to_vec().into()).unwrap();
    assert!(matches!(store.receive(sent.digest(), digest, size, 0), Err(StoreError::Busy { .. })));
    assert!(matches!(first.finish(WHO), Err(StoreError::Incomplete { received: 1234, .. })));
    let missing = store.plan(&sent.manifest).unwrap().missing;
    assert!(missing.contains(&Missing { digest, size, received: 1234 }), "{missing:?}");
    let beyond = store.receive(sent.digest(), digest, size, 2000);
    assert!(matches!(beyond, Err(StoreError::Offset { received: 1234, .. })));
    let mut second = store.receive(sent.digest(), digest, size, 1234).unwrap();
    second.write(blob[1234..].to_vec().into()).unwrap();
    assert_eq!(second.finish(WHO).unwrap(), Taken { digest, size });
    assert_eq!(fs::read(store.blob(&digest)).unwrap(), *blob);
}

#[test]
fn what_is_not_declared_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(3));
    let blob = &sent.blobs[1];
    let (digest, size) = (Digest::of(blob), blob.len() as u64);
    assert!(matches!(store.receive(sent.digest(), digest, size, 0), Err(StoreError::Unknown { .. })));
    let huge = store.receive(sent.digest(), sent.digest(), u64::MAX, 0);
    assert!(matches!(huge, Err(StoreError::NotNamed { .. })));
    sent.send(&store, &sent.manifest).unwrap();
    assert!(matches!(store.receive(sent.digest(), digest, size + 1, 0), Err(StoreError::NotNamed { .. })));
    assert!(matches!(store.receive(sent.digest(), Digest::of(b"x"), 1, 0), Err(StoreError::NotNamed { .. })));

    let mut long = store.receive(sent.digest(), digest, size, 0).unwrap();
    long.write(blob.clone().into()).unwrap();
    assert!(matches!(long.write(Bytes::from_static(b"x")), Err(StoreError::TooLong { .. })));
    drop(long);
    let mut wrong = store.receive(sent.digest(), digest, size, 0).unwrap();
    wrong.write(vec![9; blob.len()].into()).unwrap();
    assert!(matches!(wrong.finish(WHO), Err(StoreError::WrongBytes { .. })));
    for folder in [BLOBS, INCOMING] {
        assert!(!dir.path().join(folder).join(digest.hex()).exists(), "{folder}");
    }
    let noise = Sent { manifest: b"{\"schemaVersion\": 2}".to_vec(), blobs: Vec::new() };
    assert!(matches!(noise.send(&store, &noise.manifest), Err(StoreError::Bundle(_))));
    assert_eq!(store.models().len(), 1);
}

#[test]
fn only_prepared_models_are_activated_and_the_one_before_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let models = [sent(1), sent(2), sent(3)];
    for model in &models {
        model.send_all(&store);
    }
    let [first, second, third] = [0, 1, 2].map(|i| models[i].digest());
    assert!(matches!(store.activate(first, WHO), Err(StoreError::NotPrepared { stage: Stage::Received, .. })));
    for model in [first, second] {
        store.advance(model, Stage::Prepared, WHO).unwrap();
        store.activate(model, WHO).unwrap();
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.active(), store.previous()), (Some(second), Some(first)));
    for model in [first, second] {
        assert!(matches!(store.remove(model, WHO), Err(StoreError::InUse { .. })));
    }
    // Its second blob is its own; the others are those of the models that stay.
    assert_eq!(store.remove(third, WHO).unwrap(), models[2].manifest.len() as u64 + 5000);
    assert_eq!(store.plan(&models[0].manifest).unwrap().missing, []);
    assert!(matches!(store.remove(third, WHO), Err(StoreError::Unknown { .. })));
}

#[test]
fn a_model_that_is_not_whole_is_not_verified_and_the_reason_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sent) = (open(dir.path()), sent(4));
    sent.send_all(&store);
    let error = store.verify(sent.digest(), WHO, &mut |_| {}).unwrap_err().to_string();
    assert!(results(dir.path()).last().unwrap().starts_with("\"verify\""), "{error}");
    assert_eq!(store.stage(&sent.digest()), Some(Stage::Received));
}

#[test]
fn one_daemon_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn half_a_line_of_the_audit_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    sent(1).send_all(&open(dir.path()));
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"at\":"].concat()).unwrap();
    sent(2).send_all(&open(dir.path()));
    assert_eq!(results(dir.path()).len(), 2);
}

/// Makes a model of this seed whole and prepared.
pub(crate) fn prepare(store: &Arc<Store>, seed: u8) -> Digest {
    let sent = sent(seed);
    for bytes in sent.all() {
        sent.send(store, bytes).unwrap();
    }
    let outcome = Prepared { apart: 0.0, allowed: 1.0, tokens_per_second: 1.0, kernels: "x".to_owned() };
    store.prepared(sent.digest(), outcome, WHO).unwrap();
    sent.digest()
}

#[test]
fn two_models_that_never_proved_themselves_do_not_push_out_the_one_that_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [good, second, third] = [1, 2, 3].map(|seed| prepare(&store, seed));
    store.activate(good, WHO).unwrap();
    store.confirm(good, WHO).unwrap();
    assert!(!store.on_probation(&good));
    store.activate(second, WHO).unwrap();
    store.activate(third, WHO).unwrap();
    assert_eq!((store.previous(), store.on_probation(&third)), (Some(good), true));
    assert_eq!(store.go_back(WHO, "x").unwrap(), Some(good));
    assert!(!store.on_probation(&good), "it proved itself before");
    // And back again, by hand: an operator's way back goes to what was served last.
    store.activate(second, WHO).unwrap();
    store.activate(good, WHO).unwrap();
    assert_eq!(store.previous(), Some(second));
}

#[test]
fn a_model_that_is_activated_again_has_to_prove_itself_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [first, second] = [1, 2].map(|seed| prepare(&store, seed));
    for model in [first, second] {
        store.activate(model, WHO).unwrap();
        store.confirm(model, WHO).unwrap();
    }
    assert_eq!(store.count_start().unwrap(), 0);
    store.activate(first, WHO).unwrap();
    let stage = |model| store.models().iter().find(|listed| listed.bundle == model).map(|listed| listed.kept.stage);
    assert_eq!((stage(first), stage(second)), (Some(Stage::Prepared), Some(Stage::Confirmed)));
    assert!(store.on_probation(&first));
    assert_eq!(store.count_start().unwrap(), 1);
    store.confirm(second, WHO).unwrap();
    assert!(store.on_probation(&first), "that was another one");
    store.failed(second, WHO, "it failed late").unwrap();
    assert_eq!((store.previous(), stage(second)), (None, Some(Stage::Verified)));
}

#[test]
fn what_is_prepared_is_not_removed_and_refusals_are_audited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let model = prepare(&store, 1);
    store.hold(Some(model));
    assert!(matches!(store.remove(model, "somebody"), Err(StoreError::InUse { .. })));
    store.hold(None);
    store.remove(model, WHO).unwrap();
    let audit = fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let refused = audit.lines().find(|line| line.contains("somebody")).unwrap();
    assert!(refused.contains("\"what\":\"remove\"") && !refused.contains("\"done\""), "{refused}");
}

#[test]
fn nothing_is_removed_while_another_model_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [broken, other] = [1, 2].map(|seed| prepare(&store, seed));
    fs::write(store.blob(&broken), b"x").unwrap();
    assert!(store.remove(other, WHO).is_err());
    assert_eq!(store.models().len(), 2);
    store.remove(broken, WHO).unwrap();
    store.remove(other, WHO).unwrap();
    assert_eq!(fs::read_dir(dir.path().join(BLOBS)).unwrap().count(), 0);
}

#[test]
fn a_blob_that_got_its_name_meanwhile_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join("partial");
    let file = disk::open_for_receiving(&partial).unwrap();
    assert!(disk::is_at(&file, &partial).unwrap());
    fs::rename(&partial, dir.path().join("whole")).unwrap();
    assert!(!disk::is_at(&file, &partial).unwrap());
    fs::write(&partial, b"another").unwrap();
    assert!(!disk::is_at(&file, &partial).unwrap());
}

#[test]
fn the_audit_goes_on_counting_in_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, full) = (dir.path().join("audit.jsonl"), dir.path().join("audit.1.jsonl"));
    let long = "x".repeat(1 << 19);
    let store = open(dir.path());
    for _ in 0..4 {
        store.note("try", None, WHO, &long).unwrap();
    }
    let numbers = |path: &Path| -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().number).collect()
    };
    assert_eq!((numbers(&full), numbers(&path)), (vec![1, 2], vec![3, 4]));
    drop(store);
    // The power went between the name of the full file and the first line of the next one.
    fs::rename(&path, &full).unwrap();
    let store = open(dir.path());
    store.note("try", None, WHO, "y").unwrap();
    assert_eq!((numbers(&full), numbers(&path)), (vec![3, 4], vec![5]));
}
