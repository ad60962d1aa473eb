//! Writes a bundle that comes from elsewhere, blob by blob: hashed as it comes, gone on with after an interruption, in its
//! place when all of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use recurve_bundle::{ANNOTATION_REF_NAME, ARTIFACT_TYPE, Bundle, BundleError, Descriptor, Digest, Hasher};

use crate::pack::{PackError, TAG};
use crate::place::{BLOBS, Output};

/// What the name of a blob that is not whole ends in.
const PARTIAL: &str = ".partial";

/// A bundle that is being fetched. Dropped, it leaves what came for the next attempt; where nothing came, no folder is left.
#[derive(Debug)]
pub struct LayoutWriter {
    output: Output,
    blobs: PathBuf,
}

/// A blob that is being fetched. Dropped, it leaves what came for the next attempt; where nothing came, nothing.
#[derive(Debug)]
pub struct IncomingBlob {
    digest: Digest,
    size: u64,
    received: u64,
    hasher: Hasher,
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl LayoutWriter {
    /// Begins, or goes on with, a bundle that will lie at `out`.
    ///
    /// # Errors
    /// When `out` exists and `overwrite` is false or it is not a bundle, somebody else fetches it, or the directory around
    /// it is missing or not writable.
    pub fn resume(out: &Path, overwrite: bool) -> Result<Self, PackError> {
        let output = Output::resume(out, overwrite)?;
        let blobs = output.staging().join(BLOBS);
        fs::create_dir_all(&blobs).map_err(PackError::io("create", &blobs))?;
        Ok(Self { output, blobs })
    }

    /// Makes sure that `bytes` more fit on the disk.
    ///
    /// # Errors
    /// When they do not.
    pub fn reserve(&self, bytes: u64) -> Result<(), PackError> {
        self.output.reserve(bytes)
    }

    /// Bytes of a blob that came already: all of them where it is whole.
    pub fn received(&self, blob: &Descriptor) -> u64 {
        let length =
            |path: PathBuf| path.symlink_metadata().ok().filter(fs::Metadata::is_file).map(|found| found.len());
        match length(self.path(&blob.digest)) {
            Some(length) if length == blob.size => length,
            _ => length(self.partial(&blob.digest)).unwrap_or(0).min(blob.size),
        }
    }

    /// Whether a blob is whole. Reads all of it: it may lie here since an earlier attempt. One that is damaged is removed.
    pub fn has(&self, blob: &Descriptor) -> bool {
        let path = self.path(&blob.digest);
        let Ok(found) = path.symlink_metadata() else { return false };
        let whole = found.is_file()
            && found.len() == blob.size
            && File::open(&path).and_then(hash).is_ok_and(|(hasher, _)| hasher.finish() == blob.digest);
        if !whole {
            let _ = fs::remove_file(&path);
        }
        whole
    }

    /// Goes on with a blob where it broke off.
    ///
    /// # Errors
    /// What came of it cannot be read.
    pub fn blob(&self, blob: &Descriptor) -> Result<IncomingBlob, PackError> {
        let (partial, path) = (self.partial(&blob.digest), self.path(&blob.digest));
        let failed = |action| PackError::io(action, &partial);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial);
        let file = open.map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("look at"))?.len();
        if length > blob.size {
            file.set_len(0).map_err(failed("shorten"))?;
        }
        let (hasher, received) = hash(&file).map_err(failed("read"))?;
        Ok(IncomingBlob { digest: blob.digest, size: blob.size, received, hasher, file, partial, path })
    }

    /// Adds a blob from memory.
    ///
    /// # Errors
    /// It is not what the descriptor says, or cannot be written.
    pub fn add(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), PackError> {
        if self.has(blob) {
            return Ok(());
        }
        let _ = fs::remove_file(self.partial(&blob.digest));
        let mut incoming = self.blob(blob)?;
        incoming.write(bytes)?;
        incoming.finish()
    }

    /// Writes the index, checks that the bundle can be opened, and puts it in its place: at every instant there is the old
    /// output or the whole new one. `referrers` are the manifests that refer to the model's, whose blobs are `beside`.
    ///
    /// # Errors
    /// It is no bundle, or something cannot be written, synced or renamed; then the output is as it was.
    pub fn finish<E: From<PackError> + From<BundleError>>(
        self,
        model: &Descriptor,
        referrers: Vec<Descriptor>,
        beside: &[Digest],
    ) -> Result<Bundle, E> {
        let opened = Bundle::open_blobs(self.output.staging(), model.digest, model.size)?;
        let manifest = opened.manifest();
        let own = manifest.layers.iter().chain([&manifest.config, model]).chain(&referrers).map(|blob| blob.digest);
        let named: BTreeSet<OsString> = own.chain(beside.iter().copied()).map(|digest| digest.hex().into()).collect();
        self.remove_others(&named)?;
        let model = Descriptor {
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            annotations: BTreeMap::from([(ANNOTATION_REF_NAME.to_owned(), TAG.to_owned())]),
            ..model.clone()
        };
        let out = self.output.out().to_owned();
        self.output.finish(std::iter::once(model).chain(referrers).collect())?;
        Ok(Bundle::open(&out)?)
    }

    /// Removes what an earlier attempt for another bundle left.
    fn remove_others(&self, named: &BTreeSet<OsString>) -> Result<(), PackError> {
        for entry in fs::read_dir(&self.blobs).map_err(PackError::io("read", &self.blobs))? {
            let entry = entry.map_err(PackError::io("read", &self.blobs))?;
            if !named.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).map_err(PackError::io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex() + PARTIAL)
    }
}

impl Drop for IncomingBlob {
    fn drop(&mut self) {
        if self.received == 0 && self.size > 0 {
            // Where it cannot go, it is an empty file.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Hashes a file from where it stands to its end; gives also how many bytes that were.
fn hash(mut file: impl Read) -> io::Result<(Hasher, u64)> {
    let (mut hasher, mut buffer, mut bytes) = (Hasher::default(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher, bytes)),
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

impl IncomingBlob {
    /// Bytes that came: where to go on.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are more than were declared, and then nothing is kept; or the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let came = self.received + bytes.len() as u64;
        if came > self.size {
            let _ = fs::remove_file(&self.partial);
            return Err(PackError::WrongSize { digest: self.digest, size: self.size, came });
        }
        self.file.write_all(bytes).map_err(PackError::io("write", &self.partial))?;
        self.hasher.update(bytes);
        self.received = came;
        Ok(())
    }

    /// Gives the blob its name.
    ///
    /// # Errors
    /// It is not complete, and can be gone on with; or it holds other bytes, and is thrown away; or the disk refuses.
    pub fn finish(mut self) -> Result<(), PackError> {
        let Self { digest, size, received, .. } = self;
        if received < size {
            return Err(PackError::WrongSize { digest, size, came: received });
        }
        let actual = std::mem::take(&mut self.hasher).finish();
        let Self { file, partial, path, .. } = &self;
        if actual != digest {
            let _ = fs::remove_file(partial);
            return Err(PackError::WrongBytes { declared: digest, actual });
        }
        file.sync_all().and_then(|()| fs::rename(partial, path)).map_err(PackError::io("write", path))
    }
}
