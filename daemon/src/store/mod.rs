//! The models of this device: blobs under their digests in the state directory, and what is known of each model.
//!
//! ```text
//! STATE/lock                     one daemon at a time
//! STATE/blobs/sha256/HEX         whole blobs, hashed when they came
//! STATE/incoming/HEX             the beginning of a blob that is on its way
//! STATE/models.json              which models there are, how far each came, which one is active
//! STATE/audit.jsonl              who did what, when, and what became of it
//! ```
//!
//! A model's way: [`receive`] takes its blobs, [`Store::verify`] hashes them as a whole, then it may be activated. Every
//! step is one write that is synced before it counts: [`disk`] alone changes files.

mod audit;
pub(crate) mod disk;
mod error;
mod receive;
mod record;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recurve_bundle::{Bundle, Descriptor, Digest, Manifest};
use rustix::fs::{FlockOperation, flock};

use audit::Audit;
pub use error::StoreError;
pub use receive::{Incoming, Taken};
use record::{Chosen, Record};
pub use record::{Kept, Stage};

const BLOBS: &str = "blobs/sha256";
const INCOMING: &str = "incoming";

/// Bytes of the disk that uploads leave free: for records, logs and the rest of the system.
const RESERVE: u64 = 64 << 20;

/// The store in a state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    state: Mutex<State>,
    _lock: File,
}

#[derive(Debug)]
struct State {
    record: Record,
    audit: Audit,
}

/// What a device lacks of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The model's digest: its manifest's.
    pub bundle: Digest,
    /// Blobs that are not there, each once, the manifest first.
    pub missing: Vec<Missing>,
    /// Bytes of them that are still to come.
    pub bytes: u64,
    /// Bytes that may be written to the disk.
    pub free: u64,
}

/// A blob that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Bytes of it that came already.
    pub received: u64,
}

/// A model of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its digest.
    pub bundle: Digest,
    /// What is known of it.
    pub kept: Kept,
    /// Whether it is the one that is served.
    pub active: bool,
    /// Whether it is the one to go back to.
    pub previous: bool,
}

impl Store {
    /// Opens the store, and makes it where there is none.
    ///
    /// # Errors
    /// The directory cannot be made or read, another daemon has it, or its record is damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        for folder in [dir.to_owned(), dir.join(BLOBS), dir.join(INCOMING)] {
            disk::make_folder(&folder)?;
        }
        let path = dir.join("lock");
        let lock = disk::open_lock(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Locked { dir: dir.to_owned() })?;
        let record = Record::read(dir)?;
        let audit = Audit::open(dir)?;
        Ok(Self { dir: dir.to_owned(), state: Mutex::new(State { record, audit }), _lock: lock })
    }

    /// The models, in the order of their digests.
    pub fn models(&self) -> Vec<Listed> {
        let state = self.lock();
        let chosen = &state.record.chosen;
        let models = state.record.models.iter();
        models
            .map(|(&bundle, kept)| Listed {
                bundle,
                kept: kept.clone(),
                active: chosen.active == Some(bundle),
                previous: chosen.previous == Some(bundle),
            })
            .collect()
    }

    /// What of this manifest's model is not here. Changes nothing.
    ///
    /// # Errors
    /// It is not a model's manifest, or the disk cannot be asked.
    pub fn plan(&self, manifest: &[u8]) -> Result<Plan, StoreError> {
        let bundle = Digest::of(manifest);
        let parsed = Manifest::parse(manifest)?;
        let own = (bundle, manifest.len() as u64);
        let mut seen = BTreeSet::new();
        let all = std::iter::once(own).chain(blobs(&parsed).map(|blob| (blob.digest, blob.size)));
        let missing: Vec<Missing> = all
            .filter(|(digest, _)| seen.insert(*digest))
            // A manifest counts when its model is in the record: a power cut may have come between the two.
            .filter(|(digest, size)| !self.has(digest, *size) || (*digest == bundle && self.stage(digest).is_none()))
            .map(|(digest, size)| Missing { digest, size, received: self.received(&digest).min(size) })
            .collect();
        let bytes = missing.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size - blob.received));
        Ok(Plan { bundle, missing, bytes, free: self.free()? })
    }

    /// Begins to take a blob of this model, from `offset` on. The manifest comes first: what it does not name, or names with
    /// another size, is refused before a byte is written.
    ///
    /// # Errors
    /// The manifest is not here, does not name it so, the disk has no room, somebody else is sending it, or less than
    /// `offset` bytes came before.
    pub fn receive(
        self: &Arc<Self>,
        bundle: Digest,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<Incoming, StoreError> {
        if digest == bundle {
            if size > Manifest::MOST_BYTES {
                return Err(StoreError::NotNamed { bundle, digest, size });
            }
        } else {
            let manifest = self.manifest(&bundle)?;
            if !blobs(&manifest).any(|blob| blob.digest == digest && blob.size == size) {
                return Err(StoreError::NotNamed { bundle, digest, size });
            }
        }
        Incoming::begin(Arc::clone(self), bundle, digest, size, offset)
    }

    /// Opens a model whose blobs are all here, hashes all of them, and records that it is whole. `progress` is given bytes.
    ///
    /// # Errors
    /// A blob is missing or damaged; damaged ones are removed, so that they can be sent again.
    pub fn verify(&self, bundle: Digest, who: &str, progress: &mut dyn FnMut(u64)) -> Result<Bundle, StoreError> {
        let checked = self.bundle(bundle).and_then(|opened| match opened.verify(progress) {
            Ok(_) => Ok(opened),
            Err(error) => {
                if let Some(damaged) = error.damaged_blob() {
                    disk::remove(&self.blob(&damaged))?;
                }
                Err(error.into())
            }
        });
        match checked {
            Ok(opened) => {
                let stage = self.stage(&bundle).map_or(Stage::Verified, |stage| stage.max(Stage::Verified));
                self.advance(bundle, stage, who)?;
                Ok(opened)
            }
            Err(error) => {
                self.note("verify", Some(bundle), who, &error.to_string())?;
                Err(error)
            }
        }
    }

    /// Opens a model of the store.
    ///
    /// # Errors
    /// There is no such model, or it is not whole.
    pub fn bundle(&self, bundle: Digest) -> Result<Bundle, StoreError> {
        let size = self.manifest_bytes(bundle)?;
        Ok(Bundle::open_blobs(&self.dir, bundle, size)?)
    }

    /// How far a model came.
    pub fn stage(&self, bundle: &Digest) -> Option<Stage> {
        self.lock().record.models.get(bundle).map(|kept| kept.stage)
    }

    /// The model that is to be served, if there is one.
    pub fn active(&self) -> Option<Digest> {
        self.lock().record.chosen.active
    }

    /// The model to go back to, if there is one.
    pub fn previous(&self) -> Option<Digest> {
        self.lock().record.chosen.previous
    }

    /// Records that a model came this far.
    ///
    /// # Errors
    /// It is not there, or the record cannot be written.
    pub fn advance(&self, bundle: Digest, stage: Stage, who: &str) -> Result<(), StoreError> {
        self.change(stage.as_str(), bundle, who, |record| {
            let kept = record.models.get_mut(&bundle).ok_or(StoreError::Unknown { bundle })?;
            if kept.stage == stage {
                return Ok(false);
            }
            kept.stage = stage;
            Ok(true)
        })
    }

    /// Makes a prepared model the active one; the one before it becomes the one to go back to.
    ///
    /// # Errors
    /// It is not prepared, or the record cannot be written: then the old one stays active.
    pub fn activate(&self, bundle: Digest, who: &str) -> Result<(), StoreError> {
        self.change("activate", bundle, who, |record| {
            let kept = record.models.get(&bundle).ok_or(StoreError::Unknown { bundle })?;
            if kept.stage < Stage::Prepared {
                return Err(StoreError::NotPrepared { bundle, stage: kept.stage });
            }
            let Chosen { active, previous, starts } = &mut record.chosen;
            if *active == Some(bundle) {
                return Ok(false);
            }
            *previous = active.replace(bundle);
            *starts = 0;
            if let Some(kept) = record.models.get_mut(&bundle) {
                kept.failure = None;
            }
            Ok(true)
        })
    }

    /// Counts a start of the daemon with the active model, if that is on probation, before anything of it is loaded. Gives
    /// the number of starts that did not end in order, this one included.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn count_start(&self) -> Result<u32, StoreError> {
        let mut starts = 0;
        self.change_quietly(|record| {
            let active = record.chosen.active.and_then(|active| record.models.get(&active));
            if active.is_none_or(|kept| kept.stage == Stage::Confirmed) {
                return Ok(false);
            }
            record.chosen.starts = record.chosen.starts.saturating_add(1);
            starts = record.chosen.starts;
            Ok(true)
        })?;
        Ok(starts)
    }

    /// The daemon ends in order: no start is held against the active model.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.change_quietly(|record| Ok(std::mem::take(&mut record.chosen.starts) > 0))
    }

    /// Makes the model before the active one again, since the active one failed; the reason is kept with that. Gives the
    /// model that is active now.
    ///
    /// # Errors
    /// There is none before, or the record cannot be written.
    pub fn go_back(&self, who: &str, reason: &str) -> Result<Digest, StoreError> {
        let (active, previous) = (self.active(), self.previous());
        let (Some(failed), Some(back)) = (active, previous) else { return Err(StoreError::NoPrevious) };
        self.note("fail", Some(failed), who, reason)?;
        self.change("roll back", back, who, |record| {
            record.chosen = Chosen { active: Some(back), previous: None, starts: 0 };
            if let Some(kept) = record.models.get_mut(&failed) {
                kept.stage = kept.stage.min(Stage::Verified);
                kept.failure = Some(reason.to_owned());
            }
            Ok(true)
        })?;
        Ok(back)
    }

    /// Removes a model and every blob that no other model has.
    ///
    /// # Errors
    /// It is not there, it is the active one or the one to go back to, or the record cannot be written.
    pub fn remove(&self, bundle: Digest, who: &str) -> Result<u64, StoreError> {
        self.change("remove", bundle, who, |record| {
            if record.chosen.active == Some(bundle) || record.chosen.previous == Some(bundle) {
                return Err(StoreError::InUse { bundle });
            }
            record.models.remove(&bundle).map(|_| true).ok_or(StoreError::Unknown { bundle })
        })?;
        self.collect_garbage()
    }

    /// Adds to the audit what was tried and what became of it; `bundle`: of which model, if it is of one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self, what: &str, bundle: Option<Digest>, who: &str, result: &str) -> Result<(), StoreError> {
        self.lock().audit.write(what, bundle, who, result)
    }

    /// Bytes of a model's manifest.
    ///
    /// # Errors
    /// There is no such model.
    pub fn manifest_bytes(&self, bundle: Digest) -> Result<u64, StoreError> {
        let size = self.lock().record.models.get(&bundle).map(|kept| kept.manifest_bytes);
        size.ok_or(StoreError::Unknown { bundle })
    }

    /// Deletes blobs, whole and partial, that no model names. Gives the bytes that were freed.
    fn collect_garbage(&self) -> Result<u64, StoreError> {
        let models: Vec<Digest> = self.lock().record.models.keys().copied().collect();
        let mut named: BTreeSet<String> = models.iter().map(Digest::hex).collect();
        for bundle in &models {
            // A model whose manifest cannot be read keeps everything: nothing is deleted on doubt.
            named.extend(blobs(&self.manifest(bundle)?).map(|blob| blob.digest.hex()));
        }
        let mut freed = 0;
        for folder in [BLOBS, INCOMING] {
            freed += disk::remove_others(&self.dir.join(folder), &named)?;
        }
        Ok(freed)
    }

    /// Changes a copy of the record and writes it; what is in memory follows what is on disk. `change` tells whether there
    /// is anything to write.
    fn change(
        &self,
        what: &str,
        bundle: Digest,
        who: &str,
        change: impl FnOnce(&mut Record) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut changed = false;
        self.change_quietly(|record| {
            changed = change(record)?;
            Ok(changed)
        })?;
        if changed { self.note(what, Some(bundle), who, "done") } else { Ok(()) }
    }

    /// The same for what nobody did.
    fn change_quietly(&self, change: impl FnOnce(&mut Record) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let mut state = self.lock();
        let mut record = state.record.clone();
        if change(&mut record)? {
            record.write(&self.dir)?;
            state.record = record;
        }
        Ok(())
    }

    /// Notes a manifest that came: its model is being received from now on.
    fn begun(&self, bundle: Digest, bytes: &[u8], who: &str) -> Result<(), StoreError> {
        let manifest = Manifest::parse(bytes)?;
        let kept =
            Kept { manifest_bytes: bytes.len() as u64, bytes: manifest.size(), stage: Stage::Received, failure: None };
        self.change("receive", bundle, who, |record| {
            Ok(record.models.insert(bundle, record.models.get(&bundle).cloned().unwrap_or(kept)).is_none())
        })
    }

    fn manifest(&self, bundle: &Digest) -> Result<Manifest, StoreError> {
        let known = self.lock().record.models.contains_key(bundle);
        if !known {
            return Err(StoreError::Unknown { bundle: *bundle });
        }
        let bytes = disk::read(&self.blob(bundle))?;
        if Digest::of(&bytes) != *bundle {
            return Err(StoreError::Damaged { path: self.blob(bundle), reason: "it holds other bytes".to_owned() });
        }
        Ok(Manifest::parse(&bytes)?)
    }

    fn has(&self, digest: &Digest, size: u64) -> bool {
        disk::length(&self.blob(digest)) == Some(size)
    }

    fn received(&self, digest: &Digest) -> u64 {
        disk::length(&self.partial(digest)).unwrap_or(0)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.dir.join(INCOMING).join(digest.hex())
    }

    /// Bytes that uploads may take.
    fn free(&self) -> Result<u64, StoreError> {
        Ok(disk::free(&self.dir)?.saturating_sub(RESERVE))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The record in memory is replaced whole, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blobs that a manifest names.
fn blobs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

#[cfg(test)]
mod tests;
