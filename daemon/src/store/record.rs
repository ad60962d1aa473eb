//! `models.json`: what is known of each model, and which one is active. Replaced as a whole with every change.

use std::collections::BTreeMap;
use std::path::Path;

use recurve_bundle::Digest;
use serde::{Deserialize, Serialize};

use super::audit::Line;
use super::disk;
use super::error::StoreError;

const NAME: &str = "models.json";
const FORMAT: u32 = 1;

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    pub(super) chosen: Chosen,
    pub(super) models: BTreeMap<Digest, Kept>,
    /// Lines of the audit that belong to this change and may not be in its file yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) lines: Vec<Line>,
}

/// What every format has.
#[derive(Debug, Deserialize)]
struct Head {
    format: u32,
}

/// Which models are chosen. Changed together.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Chosen {
    /// The one that is served.
    pub(super) active: Option<Digest>,
    /// The one to go back to.
    pub(super) previous: Option<Digest>,
    /// The active model has proved itself since it became that: its probation is over.
    #[serde(default)]
    pub(super) proved: bool,
    /// Starts of the daemon with the active model, while it is on probation, that did not end in order.
    #[serde(default)]
    pub(super) starts: u32,
}

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Bytes of its manifest.
    pub manifest_bytes: u64,
    /// Bytes of what its manifest names.
    pub bytes: u64,
    /// How far it came.
    pub stage: Stage,
    /// What came out when it was prepared here last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Prepared>,
    /// Why the device went back from it by itself, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What came out when a model was prepared on this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// How far its logits are from the golden ones, in the bundle's measure.
    pub apart: f64,
    /// How far they may be.
    pub allowed: f64,
    /// Tokens a second, of one row, one after the other.
    pub tokens_per_second: f64,
    /// Whose kernels compute.
    pub kernels: String,
}

/// How far a model came on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its manifest is here; blobs are coming.
    Received,
    /// All blobs are here and hold what their digests say.
    Verified,
    /// It passed its golden test here.
    Prepared,
    /// It served well for the time of probation, once.
    Confirmed,
}

impl Chosen {
    /// The same after a model became the active one. The one before it becomes the one to go back to; where that is not good, the
    /// one that it had itself to go back to stays it.
    pub(super) fn activated(self, bundle: Digest, good: impl Fn(&Digest) -> bool) -> Self {
        if self.active == Some(bundle) {
            return self;
        }
        let previous = self.previous.filter(|previous| *previous != bundle);
        let back = self.active.filter(&good).or(previous.filter(&good)).or(self.active);
        Self { active: Some(bundle), previous: back, proved: false, starts: 0 }
    }
}

impl Kept {
    /// The device does not serve it any more, for this reason, until somebody has it prepared again.
    pub(super) fn fail(&mut self, reason: &str) {
        self.stage = self.stage.min(Stage::Verified);
        self.failure = Some(reason.to_owned());
    }
}

impl Stage {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Verified => "verified",
            Self::Prepared => "prepared",
            Self::Confirmed => "confirmed",
        }
    }
}

impl Record {
    pub(super) fn new(chosen: Chosen, models: BTreeMap<Digest, Kept>) -> Self {
        Self { format: FORMAT, chosen, models, lines: Vec::new() }
    }

    /// Reads the record; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Newer`] and [`StoreError::Damaged`], besides those of the disk.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(NAME);
        let Some(bytes) = disk::read_if_there(&path)? else { return Ok(None) };
        // The format first: another one may have other fields.
        if let Some(found) = serde_json::from_slice::<Head>(&bytes).ok().filter(|head| head.format != FORMAT) {
            return Err(StoreError::Newer { path, found: found.format, known: FORMAT });
        }
        let record = serde_json::from_slice(&bytes);
        record.map(Some).map_err(|error| StoreError::Damaged { path, reason: error.to_string() })
    }

    /// The models of which a damaged blob was removed, and what was wrong with it.
    pub(super) fn damaged(&self) -> impl Iterator<Item = (Digest, &str)> {
        // Nothing else fails before all of a model is here.
        let received = self.models.iter().filter(|(_, kept)| kept.stage == Stage::Received);
        received.filter_map(|(bundle, kept)| Some((*bundle, kept.failure.as_deref()?)))
    }

    /// Takes the place of the record on disk.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(NAME);
        let bytes = serde_json::to_vec(self).map_err(|error| StoreError::Io {
            action: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        disk::replace(&path, &bytes)
    }
}
