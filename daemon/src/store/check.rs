//! What is stored is looked at again: each blob is hashed, and a damaged one is removed, so that the next deployment brings it.
//! A blob that is missing from a model that was whole is damage, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use recurve_bundle::{Bundle, BundleError, Descriptor, Digest, hash_file, is_unreadable};
use recurve_telemetry::event;
use tokio::sync::watch;
use tracing::{error, warn};

use super::error::StoreError;
use super::record::{Record, Stage};
use super::{SELF, Store, blobs, disk};

/// How long a blob that was hashed counts as whole for a plan, while its file does not change.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// A blob of a model, under the name that it has there.
#[derive(Debug, Clone)]
pub struct Part {
    /// "manifest", "config", or the layer's filepath.
    pub what: String,
    /// Digest and size.
    pub blob: Descriptor,
}

/// What a look at a blob found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It holds what its name says.
    Whole,
    /// The hashing was stopped, or another file got the blob's name meanwhile.
    Unsure,
    /// It is not here, and nothing new follows from that: its models are still being received, or are known to be damaged.
    Absent,
    /// It is damaged or missing, in this way, and its models are marked.
    Damaged(String),
}

/// A file and its state, as the file system tells them: writing to the file changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// File systems count time in steps of up to so much: two changes within one look like one.
const TICK: Duration = Duration::from_millis(20);

/// Blobs that were whole when they were hashed last.
#[derive(Debug, Default)]
pub(super) struct Hashed(BTreeMap<Digest, (Identity, Instant)>);

impl Hashed {
    /// Takes note of a blob that is whole, unless its file changed so lately that another change could not be told from that.
    fn add(&mut self, digest: Digest, found: &Metadata) {
        let changed = Duration::new(found.ctime().unsigned_abs(), u32::try_from(found.ctime_nsec()).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.checked_sub(changed).is_some_and(|since| since > TICK) {
            self.0.insert(digest, (Identity::of(found), Instant::now()));
        }
    }
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Part {
    fn new(what: &str, digest: Digest, size: u64) -> Self {
        let blob = Descriptor {
            media_type: String::new(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::default(),
        };
        Self { what: what.to_owned(), blob }
    }
}

impl Store {
    /// What the store in this directory knows of damage, without taking or changing anything: another daemon may have it.
    ///
    /// # Errors
    /// Its record is damaged, or the disk refuses.
    pub fn told(dir: &Path) -> Result<Told, StoreError> {
        Record::read(dir)?.map_or_else(|| Ok(Told::default()), |record| Told::of(&record, dir))
    }

    /// What happened to the record of the models, where it had to be rebuilt at this start.
    pub fn rebuilt(&self) -> Option<&str> {
        self.rebuilt.as_deref()
    }

    /// Whether the state directory is still the one that was opened: neither removed, nor replaced by another one.
    pub fn is_in_place(&self) -> bool {
        disk::is_at(&self.lock, &self.dir.join("lock")).unwrap_or(true)
    }

    /// Whether all blobs of a model are here with their sizes.
    pub fn is_complete(&self, bundle: Digest) -> bool {
        let parts = self.parts(bundle);
        parts.len() > 1 && parts.iter().all(|part| self.has(&part.blob.digest, part.blob.size))
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has the system drop a blob from the page cache: it was only hashed.
    pub fn drop_from_cache(&self, digest: &Digest) {
        disk::drop_from_cache(&self.blob(digest));
    }

    /// Why models are damaged, by their digests. It changes when damage is found, and when a model is whole again.
    pub fn damage(&self) -> watch::Receiver<BTreeMap<Digest, String>> {
        self.damage.subscribe()
    }

    /// Why a model is damaged, if it is known to be.
    pub fn damage_of(&self, bundle: &Digest) -> Option<String> {
        self.damage.borrow().get(bundle).cloned()
    }

    /// The blobs of a model, each once, the manifest first. Where the manifest cannot be read: the manifest alone.
    pub fn parts(&self, bundle: Digest) -> Vec<Part> {
        let Ok(size) = self.manifest_bytes(bundle) else { return Vec::new() };
        let mut parts = vec![Part::new("manifest", bundle, size)];
        if let Ok(manifest) = self.manifest(&bundle) {
            let mut seen = BTreeSet::from([bundle]);
            let others = blobs(&manifest).filter(|blob| seen.insert(blob.digest));
            parts.extend(others.map(|blob| Part::new(blob.filepath().unwrap_or("config"), blob.digest, blob.size)));
        }
        parts
    }

    /// Opens a model whose blobs are all here, hashes all of them, and records that it is whole. `progress` is given bytes.
    ///
    /// # Errors
    /// A blob is missing or damaged; damaged ones are removed, so that they can be sent again.
    pub fn verify(&self, bundle: Digest, who: &str, progress: &mut dyn FnMut(u64)) -> Result<Bundle, StoreError> {
        // A model that is still being received may lack blobs: it is not searched for damage.
        let mut is_here = self.stage(&bundle) >= Some(Stage::Verified);
        let checked = self.bundle(bundle).and_then(|opened| {
            is_here = true;
            opened.verify(progress)?;
            Ok(opened)
        });
        match checked {
            Ok(opened) => {
                self.found_whole(bundle, who)?;
                Ok(opened)
            }
            Err(error) => {
                if is_here {
                    self.check(bundle);
                }
                self.note("verify", Some(bundle), who, &error.to_string())?;
                Err(error)
            }
        }
    }

    /// Records that a model is whole, of which the caller hashed every blob.
    ///
    /// # Errors
    /// It is not there, or the record cannot be written.
    pub fn found_whole(&self, bundle: Digest, who: &str) -> Result<(), StoreError> {
        let stage = self.stage(&bundle).map_or(Stage::Verified, |stage| stage.max(Stage::Verified));
        self.advance(bundle, stage, who)?;
        self.mended(&bundle);
        Ok(())
    }

    /// Hashes every blob of a model; returns why the model is damaged, if that is found now.
    pub fn check(&self, bundle: Digest) -> Option<String> {
        let mut reason = None;
        for part in self.parts(bundle) {
            match self.check_part(&part, &mut |_| true) {
                Ok(Checked::Damaged(found)) => reason = reason.or(Some(found)),
                Ok(Checked::Whole | Checked::Unsure | Checked::Absent) => {}
                Err(error) => warn!(%bundle, %error, "a blob cannot be hashed"),
            }
        }
        reason
    }

    /// Hashes one blob. A damaged one is removed, and each of its models is recorded as damaged; where it is missing, each model
    /// that was whole with it. `go_on` is given the bytes since its last call, and stops the hashing by returning false.
    ///
    /// # Errors
    /// The file cannot be opened or read, which says nothing of what it holds.
    pub fn check_part(&self, part: &Part, go_on: &mut dyn FnMut(u64) -> bool) -> Result<Checked, StoreError> {
        let Part { what, blob } = part;
        let path = self.blob(&blob.digest);
        let file = match disk::open_if_there(&path) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(self.miss(part)),
            Err(StoreError::Io { source, .. }) if is_unreadable(&source) => {
                return Ok(self.take_out(None, part, &format!("the disk cannot open it: {source}")));
            }
            Err(error) => return Err(error),
        };
        let found = disk::metadata(&file, &path)?;
        let hashed = if found.len() == blob.size {
            hash_file(&file, &path, what, blob, go_on)
        } else {
            let (what, digest, declared) = (what.clone(), blob.digest, blob.size);
            Err(BundleError::BlobSize { what, digest, declared, actual: found.len() })
        };
        match hashed {
            Ok(true) => {
                self.hashed().add(blob.digest, &found);
                Ok(Checked::Whole)
            }
            Ok(false) => Ok(Checked::Unsure),
            Err(error) => match error.damage() {
                Some(words) => Ok(self.take_out(Some(&file), part, &words)),
                None => Err(error.into()),
            },
        }
    }

    /// Whether a blob is here and holds what its name says. It is hashed, unless that was done a short time ago.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(super) fn holds(&self, what: &str, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let path = self.blob(&digest);
        let Some(found) = path.symlink_metadata().ok().filter(Metadata::is_file) else { return Ok(false) };
        let fresh = self.hashed().0.get(&digest).copied();
        if fresh.is_some_and(|(then, at)| then == Identity::of(&found) && at.elapsed() < FRESH) {
            return Ok(true);
        }
        // One at a time: the second one finds it fresh.
        let _turn = self.checking.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = self.check_part(&Part::new(what, digest, size), &mut |_| true)?;
        Ok(!matches!(checked, Checked::Damaged(_)) && self.has(&digest, size))
    }

    /// A blob came whole: its bytes were hashed on the way.
    pub(super) fn came(&self, digest: Digest, file: &File) {
        if let Ok(found) = file.metadata() {
            self.hashed().add(digest, &found);
        }
    }

    /// A model is whole again, or gone.
    pub(super) fn mended(&self, bundle: &Digest) {
        self.damage.send_if_modified(|damage| damage.remove(bundle).is_some());
    }

    /// Removes a damaged blob and records its models as damaged. Nothing happens where another file has the blob's name by now.
    /// `file`: the one that was looked at, unless it cannot be opened.
    fn take_out(&self, file: Option<&File>, part: &Part, words: &str) -> Checked {
        let path = self.blob(&part.blob.digest);
        let _naming = self.naming();
        let is_another = match file {
            Some(file) => !disk::is_at(file, &path).unwrap_or(true),
            None => disk::open_if_there(&path).is_ok(),
        };
        if is_another {
            return Checked::Unsure;
        }
        let models = self.models_with(&part.blob.digest);
        self.mark(part, words, &models)
    }

    /// Records the models as damaged that were whole with a blob that is missing, where that is news.
    fn miss(&self, part: &Part) -> Checked {
        let digest = &part.blob.digest;
        let _naming = self.naming();
        // It may have come meanwhile. Where all of the directory is gone, that is an alarm of its own, and the model serves on.
        if self.blob(digest).symlink_metadata().is_ok() || !self.is_in_place() {
            return Checked::Absent;
        }
        let mut models = self.models_with(digest);
        models.retain(|model| self.was_whole(model) && self.damage_of(model).is_none());
        if models.is_empty() { Checked::Absent } else { self.mark(part, "the file is missing", &models) }
    }

    /// Records these models as damaged, then removes the blob where there is one. The caller holds `naming`.
    fn mark(&self, part: &Part, words: &str, models: &[Digest]) -> Checked {
        let digest = part.blob.digest;
        let reason = format!("{}: blob {digest} is damaged: {words}", part.what);
        self.hashed().0.remove(&digest);
        // In memory in any case: a disk that fails may take no more writes.
        self.damage.send_modify(|damage| damage.extend(models.iter().map(|model| (*model, reason.clone()))));
        let recorded = self.record_damage(models, &reason).and_then(|()| disk::remove(&self.blob(&digest)));
        if let Err(error) = recorded {
            warn!(%error, "the damage cannot be recorded, or the blob cannot be removed: the next start looks at it again");
        }
        let models = models.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ");
        error!(
            event = event::MODEL_DAMAGED.name,
            models, reason, "a stored model is damaged: deploy it again, only the damaged file travels"
        );
        Checked::Damaged(reason)
    }

    /// The models that have a blob.
    fn models_with(&self, digest: &Digest) -> Vec<Digest> {
        let mut models: Vec<Digest> = self.lock().record.models.keys().copied().collect();
        models.retain(|bundle| self.parts(*bundle).iter().any(|part| part.blob.digest == *digest));
        models
    }

    /// Whether all blobs of a model were here once.
    fn was_whole(&self, bundle: &Digest) -> bool {
        let state = self.lock();
        let verified = state.record.models.get(bundle).is_some_and(|kept| kept.stage >= Stage::Verified);
        // Where the record was rebuilt without a blob of the active model, that counts as received.
        verified || state.record.chosen.active == Some(*bundle)
    }

    fn record_damage(&self, models: &[Digest], reason: &str) -> Result<(), StoreError> {
        models.iter().try_for_each(|model| {
            self.change_with("check", Some(*model), SELF, reason, |record| {
                let Some(kept) = record.models.get_mut(model) else { return Ok(false) };
                kept.stage = Stage::Received;
                kept.failure = Some(reason.to_owned());
                record.chosen.previous = record.chosen.previous.filter(|previous| previous != model);
                Ok(true)
            })
        })
    }

    fn hashed(&self) -> MutexGuard<'_, Hashed> {
        // An entry is written whole.
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the files of a store say of damage.
#[derive(Debug, Default)]
pub struct Told {
    /// The models that are damaged.
    pub damaged: Vec<Damaged>,
    /// Damaged records that are kept under other names.
    pub kept_aside: Vec<PathBuf>,
}

/// A model that is damaged.
#[derive(Debug)]
pub struct Damaged {
    /// Its digest.
    pub bundle: Digest,
    /// In which way.
    pub reason: String,
    /// Whether it is the active one.
    pub active: bool,
}

impl Told {
    fn of(record: &Record, dir: &Path) -> Result<Self, StoreError> {
        let active = record.chosen.active;
        let damaged = record.damaged().map(|(bundle, reason)| Damaged {
            bundle,
            reason: reason.to_owned(),
            active: active == Some(bundle),
        });
        let aside = |(name, _): (String, u64)| name.starts_with("models.json.damaged-").then(|| dir.join(name));
        Ok(Self { damaged: damaged.collect(), kept_aside: disk::files(dir)?.into_iter().filter_map(aside).collect() })
    }
}
