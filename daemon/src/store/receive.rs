//! A blob on its way in: bounded by its declared size, hashed as it comes, named only when it is whole and on disk.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use recurve_bundle::{Digest, Hasher};
use rustix::fs::{FlockOperation, flock};

use super::error::StoreError;
use super::hashing::Hashing;
use super::{Store, disk};

/// A blob that is being sent. Dropped, it leaves what came so far for the next attempt.
#[derive(Debug)]
pub struct Incoming {
    store: Arc<Store>,
    bundle: Digest,
    digest: Digest,
    size: u64,
    received: u64,
    hashing: Hashing,
    path: PathBuf,
    // Locked: nobody else writes to it.
    file: File,
}

/// A blob that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Incoming {
    pub(super) fn begin(
        store: Arc<Store>,
        bundle: Digest,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<Self, StoreError> {
        let path = store.partial(&digest);
        let failed = |action| {
            let path = path.clone();
            move |source| StoreError::Io { action, path, source }
        };
        let mut file = disk::open_for_receiving(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::Busy { digest })?;
        // Whoever held the lock until now may have finished: the open file is then the whole blob under its final name.
        if !disk::is_at(&file, &path).map_err(failed("look at"))? {
            return Err(StoreError::Busy { digest });
        }
        let there = disk::length(&path).unwrap_or(0);
        if offset > there || offset > size {
            return Err(StoreError::Offset { digest, offset, received: there.min(size) });
        }
        let (needed, free) = (size - offset, store.free()?.saturating_add(there));
        if needed > free {
            return Err(StoreError::NoRoom { path: store.dir.clone(), needed, free });
        }
        disk::truncate(&file, offset, &path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(failed("read"))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        file.seek(SeekFrom::End(0)).map_err(failed("read"))?;
        let hashing = Hashing::begin(hasher).map_err(failed("hash"))?;
        Ok(Self { store, bundle, digest, size, received: offset, hashing, path, file })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are more than were declared, and then nothing is kept; or the disk refuses.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.size - self.received {
            disk::remove(&self.path)?;
            return Err(StoreError::TooLong { digest: self.digest, size: self.size });
        }
        let unhashed = |source| StoreError::Io { action: "hash", path: self.path.clone(), source };
        self.hashing.update(bytes.clone()).map_err(unhashed)?;
        disk::write(&mut self.file, &bytes, &self.path)?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Puts the blob in its place. `who` sent it.
    ///
    /// # Errors
    /// It is not complete, and can be gone on with; or it holds other bytes, and is thrown away; or it is a manifest that
    /// cannot be used; or the disk refuses.
    pub fn finish(self, who: &str) -> Result<Taken, StoreError> {
        let Self { store, bundle, digest, size, received, hashing, path, file } = self;
        if received < size {
            return Err(StoreError::Incomplete { digest, size, received });
        }
        let actual =
            hashing.finish().map_err(|source| StoreError::Io { action: "hash", path: path.clone(), source })?;
        if actual != digest {
            disk::remove(&path)?;
            let error = StoreError::WrongBytes { declared: digest, actual };
            store.note("receive", Some(bundle), who, &error.to_string())?;
            return Err(error);
        }
        let _naming = store.naming();
        if digest == bundle {
            let bytes = disk::read(&path)?;
            if let Err(error) = recurve_bundle::Manifest::parse(&bytes) {
                disk::remove(&path)?;
                return Err(error.into());
            }
            disk::place(&file, &path, &store.blob(&digest))?;
            store.begun(bundle, &bytes, who)?;
        } else {
            disk::place(&file, &path, &store.blob(&digest))?;
        }
        store.came(digest, &file);
        Ok(Taken { digest, size })
    }
}
