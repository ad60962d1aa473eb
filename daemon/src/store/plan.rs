//! What a device lacks of a model.

use std::collections::BTreeSet;

use recurve_bundle::{Digest, Manifest};

use super::error::StoreError;
use super::{Store, blobs, disk};

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

impl Store {
    /// What of this manifest's model is not here. Blobs that are here are hashed, unless that was done a short time ago; a damaged
    /// one is removed and counts as missing. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// It is not a model's manifest, or the disk cannot be read.
    pub fn plan(&self, manifest: &[u8]) -> Result<Plan, StoreError> {
        let bundle = Digest::of(manifest);
        let parsed = Manifest::parse(manifest)?;
        let own = ("manifest", bundle, manifest.len() as u64);
        let mut seen = BTreeSet::new();
        let named = blobs(&parsed).map(|blob| (blob.filepath().unwrap_or("config"), blob.digest, blob.size));
        let all = std::iter::once(own).chain(named).filter(|(_, digest, _)| seen.insert(*digest));
        let mut missing = Vec::new();
        for (what, digest, size) in all {
            // A manifest counts when its model is in the record: a power cut may have come between the two.
            let unknown = digest == bundle && self.stage(&digest).is_none();
            if !self.holds(what, digest, size)? || unknown {
                missing.push(Missing { digest, size, received: self.received(&digest).min(size) });
            }
        }
        let bytes = missing.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size - blob.received));
        Ok(Plan { bundle, missing, bytes, free: self.free()? })
    }

    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        disk::length(&self.blob(digest)) == Some(size)
    }

    fn received(&self, digest: &Digest) -> u64 {
        disk::length(&self.partial(digest)).unwrap_or(0)
    }
}
