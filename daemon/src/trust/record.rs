//! `trust/trusted`: all that is believed, in one file that is replaced as a whole. A crash at any instant leaves the old or
//! the new one.

use std::path::Path;

use chrono::{DateTime, Utc};
use recurve_bundle::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tough::schema::{Role, RoleType, Root, Signed, Snapshot, Targets, Timestamp};

use super::error::TrustError;
use crate::store::{StoreError, disk};

/// The file's name.
const NAME: &str = "trusted";
/// Its first line: magic and version.
const HEAD: &str = "recurve-trust 1\n";

/// What the file holds: metadata as they came, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) root: String,
    /// None until the first update.
    pub(super) below: Option<Below>,
    /// The latest time that is known to have been reached.
    pub(super) known_time: Option<DateTime<Utc>>,
}

/// The metadata below the root: one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Below {
    pub(super) timestamp: String,
    pub(super) snapshot: String,
    pub(super) targets: String,
}

/// The same, understood.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    pub(super) stored: Stored,
    pub(super) root: Root,
    pub(super) below: Option<(Timestamp, Snapshot, Targets)>,
}

impl Trusted {
    /// Understands metadata that were verified.
    pub(super) fn new(stored: Stored) -> Result<Self, serde_json::Error> {
        let root = signed(&stored.root)?;
        let below = match &stored.below {
            Some(below) => Some((signed(&below.timestamp)?, signed(&below.snapshot)?, signed(&below.targets)?)),
            None => None,
        };
        Ok(Self { stored, root, below })
    }

    /// Version and time of expiry of every role that there is, from the root down.
    pub(super) fn roles(&self) -> Vec<(RoleType, u64, DateTime<Utc>)> {
        let mut roles = vec![described(&self.root)];
        if let Some((timestamp, snapshot, targets)) = &self.below {
            roles.extend([described(timestamp), described(snapshot), described(targets)]);
        }
        roles
    }

    /// Digest and size of every model that is signed.
    pub(super) fn bundles(&self) -> impl Iterator<Item = (Digest, u64)> {
        let targets = self.below.iter().flat_map(|(_, _, targets)| &targets.targets);
        targets.filter_map(|(name, target)| {
            let digest = Digest::from_bytes(target.hashes.sha256.as_ref().try_into().ok()?);
            (name.raw() == digest.hex()).then_some((digest, target.length))
        })
    }

    /// Reads the file; none where there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, TrustError> {
        let path = folder.join(NAME);
        let damaged = |reason: String| TrustError::Damaged { path: path.clone(), reason };
        let Some(bytes) = disk::read_if_there(&path)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text".to_owned()))?;
        let body = text.strip_prefix(HEAD).ok_or_else(|| {
            let head: String = text.lines().next().unwrap_or_default().chars().take(32).collect();
            damaged(format!("it begins with {head:?}, and this version reads {:?}", HEAD.trim_end()))
        })?;
        let (json, digest) = body.trim_end().rsplit_once('\n').ok_or_else(|| damaged("it is cut off".to_owned()))?;
        if digest != Digest::of(json.as_bytes()).to_string() {
            return Err(damaged("its digest is another one".to_owned()));
        }
        let stored = serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
        Self::new(stored).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Takes the place of the file on disk.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(NAME);
        let json = serde_json::to_string(&self.stored).map_err(|error| StoreError::Io {
            action: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        let digest = Digest::of(json.as_bytes());
        disk::replace(&path, format!("{HEAD}{json}\n{digest}\n").as_bytes())
    }
}

/// The part of metadata that is signed.
pub(super) fn signed<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    Ok(serde_json::from_str::<Signed<T>>(text)?.signed)
}

fn described<T: Role>(role: &T) -> (RoleType, u64, DateTime<Utc>) {
    let expires = role.expires();
    // Times of year 9999 are within what chrono knows.
    let time = DateTime::from_timestamp(expires.as_second(), expires.subsec_nanosecond().unsigned_abs());
    (T::TYPE, role.version().get(), time.unwrap_or(DateTime::<Utc>::MIN_UTC))
}
