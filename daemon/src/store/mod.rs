//! The models of this device: blobs under their digests in the state directory, and what is known of each model.
//!
//! ```text
//! STATE/lock                     one daemon at a time
//! STATE/blobs/sha256/HEX         whole blobs, hashed when they came
//! STATE/incoming/HEX             the beginning of a blob that is on its way
//! STATE/models.json              which models there are, how far each came, which one is active
//! STATE/models.json.damaged-N    what could not be read of it at a start: it was rebuilt then
//! STATE/audit.jsonl              who did what, when, and what became of it
//! ```
//!
//! A model's way: [`receive`] takes its blobs, [`Store::verify`] hashes them as a whole, then it may be activated. Every
//! step is one write that is synced before it counts: [`disk`] alone changes files.

mod activate;
mod audit;
mod check;
pub(crate) mod disk;
mod error;
mod fault;
mod hashing;
mod plan;
mod pull;
mod rebuild;
mod receive;
mod record;
mod remove;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recurve_bundle::{Bundle, Descriptor, Digest, Manifest};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tracing::warn;

use audit::Audit;
pub use audit::Line as AuditLine;
use audit::Line;
pub(crate) use audit::SELF;
use check::Hashed;
pub use check::{Checked, Part, Told};
pub use error::StoreError;
pub use plan::{Missing, Plan};
pub use pull::{PullError, PullOrder, Pulling, Pulls};
use rebuild::Opened;
pub use receive::{Incoming, Taken};
use record::Record;
pub use record::{Kept, Prepared, Stage};

const BLOBS: &str = "blobs/sha256";
const INCOMING: &str = "incoming";

/// Bytes of the disk that uploads leave free: for records, logs and the rest of the system.
const RESERVE: u64 = 64 << 20;

/// The store in a state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while blobs that nobody names are deleted, and while blobs get their names.
    naming: Mutex<()>,
    changes: watch::Sender<u64>,
    /// Why models are damaged.
    damage: watch::Sender<BTreeMap<Digest, String>>,
    hashed: Mutex<Hashed>,
    /// Held while blobs are hashed for a plan.
    checking: Mutex<()>,
    /// What happened to the record, where it had to be rebuilt at this start.
    rebuilt: Option<String>,
    lock: File,
}

#[derive(Debug)]
struct State {
    record: Record,
    audit: Audit,
    /// The model that is being prepared: it is not removed.
    held: Option<Digest>,
}

/// A model of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its digest.
    pub bundle: Digest,
    /// What is known of it. The active one is confirmed when it has proved itself since it is that.
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
    /// The directory cannot be made or read, another daemon has it, or a newer version wrote its record.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        for folder in [dir.to_owned(), dir.join(BLOBS), dir.join(INCOMING)] {
            disk::make_folder(&folder)?;
        }
        let path = dir.join("lock");
        let lock = disk::open_lock(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Locked { dir: dir.to_owned() })?;
        let audit = Audit::open(dir)?;
        let Opened { record, rebuilt } = rebuild::open(dir, &audit)?;
        let damage = record.damaged().map(|(bundle, reason)| (bundle, reason.to_owned())).collect();
        let mut state = State { record, audit, held: None };
        state.follow();
        let store = Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
            naming: Mutex::default(),
            changes: watch::Sender::new(0),
            damage: watch::Sender::new(damage),
            hashed: Mutex::default(),
            checking: Mutex::default(),
            rebuilt,
            lock,
        };
        let tidied = match &store.rebuilt {
            // Nothing is deleted on doubt.
            Some(words) => store.note("rebuild", None, SELF, words),
            // What a removal left when it was cut off.
            None => store.collect_garbage().map(drop),
        };
        if let Err(error) = tidied {
            warn!(%error, "blobs that no model needs are left on the disk, or the audit lacks a line");
        }
        Ok(store)
    }

    /// The active model of the store in this directory, without taking or changing anything: another daemon may have it.
    ///
    /// # Errors
    /// Its record is damaged, or the model is not whole.
    pub fn glance(dir: &Path) -> Result<Option<Bundle>, StoreError> {
        let Some(record) = Record::read(dir)? else { return Ok(None) };
        let Some(active) = record.chosen.active else { return Ok(None) };
        let size = record.models.get(&active).map(|kept| kept.manifest_bytes);
        let size = size.ok_or(StoreError::Unknown { bundle: active })?;
        Ok(Some(Bundle::open_blobs(dir, active, size)?))
    }

    /// Changes with every change of the record.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The lines of the audit after this one that are kept.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn audit_after(&self, number: u64) -> Result<Vec<Line>, StoreError> {
        self.lock().audit.after(number)
    }

    /// The models, in the order of their digests.
    pub fn models(&self) -> Vec<Listed> {
        let state = self.lock();
        let chosen = &state.record.chosen;
        let models = state.record.models.iter();
        models
            .map(|(&bundle, kept)| {
                let (active, previous) = (chosen.active == Some(bundle), chosen.previous == Some(bundle));
                let mut kept = kept.clone();
                if active && !chosen.proved {
                    kept.stage = kept.stage.min(Stage::Prepared);
                }
                Listed { bundle, kept, active, previous }
            })
            .collect()
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

    /// Opens a model of the store.
    ///
    /// # Errors
    /// There is no such model, or it is not whole.
    pub fn bundle(&self, bundle: Digest) -> Result<Bundle, StoreError> {
        Ok(Bundle::open_blobs(&self.dir, bundle, self.manifest_bytes(bundle)?)?)
    }

    /// Bytes of a model's manifest.
    ///
    /// # Errors
    /// There is no such model.
    pub fn manifest_bytes(&self, bundle: Digest) -> Result<u64, StoreError> {
        let size = self.lock().record.models.get(&bundle).map(|kept| kept.manifest_bytes);
        size.ok_or(StoreError::Unknown { bundle })
    }

    /// How far a model came.
    pub fn stage(&self, bundle: &Digest) -> Option<Stage> {
        self.lock().record.models.get(bundle).map(|kept| kept.stage)
    }

    /// Records that a model came this far.
    ///
    /// # Errors
    /// It is not there, or the record cannot be written.
    fn advance(&self, bundle: Digest, stage: Stage, who: &str) -> Result<(), StoreError> {
        self.change(stage.as_str(), bundle, who, |record| {
            let kept = record.models.get_mut(&bundle).ok_or(StoreError::Unknown { bundle })?;
            if kept.stage == stage {
                return Ok(false);
            }
            if kept.stage == Stage::Received {
                // It can only have failed for a damaged blob, which came again.
                kept.failure = None;
            }
            kept.stage = stage;
            Ok(true)
        })
    }

    /// Records what came out when a model was prepared: it may be activated.
    ///
    /// # Errors
    /// It is not there, or the record cannot be written.
    pub fn prepared(&self, bundle: Digest, outcome: Prepared, who: &str) -> Result<(), StoreError> {
        self.change(Stage::Prepared.as_str(), bundle, who, |record| {
            let kept = record.models.get_mut(&bundle).ok_or(StoreError::Unknown { bundle })?;
            kept.stage = kept.stage.max(Stage::Prepared);
            kept.prepared = Some(outcome);
            Ok(true)
        })
    }

    /// Adds to the audit what was tried and what became of it; `bundle`: of which model, if it is of one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self, what: &str, bundle: Option<Digest>, who: &str, result: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        let line = Line::new(state.next(), what, bundle, who, result);
        state.catch_up()?;
        state.audit.write(&line)
    }

    /// Changes a copy of the record and writes it together with its line of the audit; what is in memory follows what is on
    /// disk. `change` tells whether there is anything to write.
    fn change(
        &self,
        what: &str,
        bundle: Digest,
        who: &str,
        change: impl FnOnce(&mut Record) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.change_with(what, Some(bundle), who, "done", change)
    }

    fn change_with(
        &self,
        what: &str,
        bundle: Option<Digest>,
        who: &str,
        result: &str,
        change: impl FnOnce(&mut Record) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.attempt(what, bundle, who, result, change).inspect_err(|error| {
            if let Err(error) = self.note(what, bundle, who, &error.to_string()) {
                warn!(%error, "the audit lacks a refusal");
            }
        })
    }

    /// The same for what is tried again until it is done: a refusal has no line.
    fn attempt(
        &self,
        what: &str,
        bundle: Option<Digest>,
        who: &str,
        result: &str,
        change: impl FnOnce(&mut Record) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        let line = Line::new(state.next(), what, bundle, who, result);
        state.write(&self.dir, Some(line), change)?;
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The same for what nobody did.
    fn change_quietly(&self, change: impl FnOnce(&mut Record) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        self.lock().write(&self.dir, None, change)
    }

    /// Notes a manifest that came: its model is being received from now on.
    fn begun(&self, bundle: Digest, bytes: &[u8], who: &str) -> Result<(), StoreError> {
        let manifest = Manifest::parse(bytes)?;
        let kept = Kept {
            manifest_bytes: bytes.len() as u64,
            bytes: manifest.size(),
            stage: Stage::Received,
            prepared: None,
            failure: None,
        };
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
            return Err(StoreError::Damaged {
                path: self.blob(bundle),
                reason: "it holds other bytes: deploy the model again".to_owned(),
            });
        }
        Ok(Manifest::parse(&bytes)?)
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

    /// Keeps a model from being removed while it is prepared; none: the one that was kept may go again.
    pub fn hold(&self, bundle: Option<Digest>) {
        self.lock().held = bundle;
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The record in memory is replaced whole, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the next line of the audit.
    fn next(&self) -> u64 {
        self.record.lines.last().map_or(0, |line| line.number).max(self.audit.last()) + 1
    }

    /// Writes what the record has and the audit lacks.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        self.record.lines.iter().try_for_each(|line| self.audit.write(line))
    }

    /// Has a copy of the record changed and written with this line, then takes it for the record.
    fn write(
        &mut self,
        dir: &Path,
        line: Option<Line>,
        change: impl FnOnce(&mut Record) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut record = self.record.clone();
        if !change(&mut record)? {
            return Ok(());
        }
        record.lines.retain(|line| line.number > self.audit.last());
        record.lines.extend(line);
        record.write(dir)?;
        self.record = record;
        self.follow();
        Ok(())
    }

    /// The audit follows when it can: its lines are safe in the record.
    fn follow(&mut self) {
        if let Err(error) = self.catch_up() {
            warn!(%error, "the audit is behind: its last lines stand in models.json until it can be written");
        }
    }
}

/// The blobs that a manifest names.
fn blobs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

#[cfg(test)]
pub(crate) mod tests;
