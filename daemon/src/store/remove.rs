//! Models that go, and the blobs that nobody needs any more.

use std::collections::BTreeSet;

use recurve_bundle::Digest;

use super::error::StoreError;
use super::{BLOBS, INCOMING, Store, blobs, disk};

impl Store {
    /// Removes a model and every blob that no other model has.
    ///
    /// # Errors
    /// It is not there, it is the active one, the one to go back to or one that is being prepared, another one cannot be read,
    /// or the record cannot be written.
    pub fn remove(&self, bundle: Digest, who: &str) -> Result<u64, StoreError> {
        // Where another model cannot be read nothing can be freed, and nothing is removed.
        self.named(Some(bundle))?;
        let held = self.lock().held;
        self.change("remove", bundle, who, |record| {
            if [record.chosen.active, record.chosen.previous, held].contains(&Some(bundle)) {
                return Err(StoreError::InUse { bundle });
            }
            record.models.remove(&bundle).map(|_| true).ok_or(StoreError::Unknown { bundle })
        })?;
        self.mended(&bundle);
        self.collect_garbage()
    }

    /// Deletes blobs, whole and partial, that no model names. Gives the bytes that were freed.
    pub(super) fn collect_garbage(&self) -> Result<u64, StoreError> {
        let _naming = self.naming();
        let named = self.named(None)?;
        let mut freed = 0;
        for folder in [BLOBS, INCOMING] {
            freed += disk::remove_others(&self.dir.join(folder), &named)?;
        }
        Ok(freed)
    }

    /// The names of all blobs that models have, but for those that only `without` has.
    fn named(&self, without: Option<Digest>) -> Result<BTreeSet<String>, StoreError> {
        let models: Vec<Digest> = self.lock().record.models.keys().copied().filter(|it| Some(*it) != without).collect();
        let mut named: BTreeSet<String> = models.iter().map(Digest::hex).collect();
        for bundle in &models {
            // A model whose manifest cannot be read keeps everything: nothing is deleted on doubt.
            named.extend(blobs(&self.manifest(bundle)?).map(|blob| blob.digest.hex()));
        }
        Ok(named)
    }
}
