//! Files of a bundle: bounded, regular, hashed.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::BundleError;
use crate::manifest::Descriptor;

/// Most bytes that are read into memory from one file, by what it is.
pub(crate) mod limit {
    /// `oci-layout`.
    pub(crate) const MARKER: u64 = 4 << 10;
    /// `index.json`.
    pub(crate) const INDEX: u64 = 1 << 20;
    /// The manifest.
    pub(crate) const MANIFEST: u64 = 4 << 20;
    /// The ModelPack configuration, `recurve.json`, and every layer that has no limit of its own.
    pub(crate) const DOCUMENT: u64 = 16 << 20;
    /// `tokenizer.json`.
    pub(crate) const TOKENIZER: u64 = 128 << 20;
    /// `golden.safetensors`: one row of logits of the largest vocabulary, or a few of a usual one.
    pub(crate) const GOLDEN: u64 = 65 << 20;
    /// `graph.onnx`.
    pub(crate) const GRAPH: u64 = 64 << 20;
}

/// A running SHA-256.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes that were added.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

/// The metadata of a regular file; a symbolic link is not followed, since a store is not to be led out of its directory.
fn regular(path: &Path) -> Result<Option<Metadata>, BundleError> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io("look at", path, source)),
    };
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_file() => return Ok(Some(metadata)),
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () => "a pipe, socket or device",
    };
    Err(BundleError::NotRegular { path: path.to_owned(), kind })
}

/// Reads a file at the layout's top that has no descriptor.
pub(crate) fn read_top(path: &Path, limit: u64, hint: &'static str) -> Result<Vec<u8>, BundleError> {
    let Some(metadata) = regular(path)? else {
        return Err(BundleError::Missing { path: path.to_owned(), hint });
    };
    let too_large = |size| BundleError::TooLarge { file: path.display().to_string(), size, limit };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let bytes = read_at_most(path, limit + 1)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Checks that a blob is there as a regular file of the declared size.
pub(crate) fn check(path: &Path, what: &str, descriptor: &Descriptor) -> Result<(), BundleError> {
    match regular(path)? {
        None => Err(BundleError::BlobMissing { what: what.to_owned(), digest: descriptor.digest }),
        Some(metadata) if metadata.len() != descriptor.size => Err(wrong_size(what, descriptor, metadata.len())),
        Some(_) => Ok(()),
    }
}

/// Reads a blob whole, checks its size and digest.
pub(crate) fn read(path: &Path, what: &str, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, BundleError> {
    if descriptor.size > limit {
        return Err(BundleError::TooLarge { file: what.to_owned(), size: descriptor.size, limit });
    }
    check(path, what, descriptor)?;
    let bytes = read_at_most(path, descriptor.size + 1)?;
    if bytes.len() as u64 != descriptor.size {
        return Err(wrong_size(what, descriptor, bytes.len() as u64));
    }
    check_digest(what, descriptor, Digest::of(&bytes))?;
    Ok(bytes)
}

/// Hashes a blob of any size; `progress` is given the bytes since its last call.
pub(crate) fn hash(
    path: &Path,
    what: &str,
    descriptor: &Descriptor,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BundleError> {
    check(path, what, descriptor)?;
    let file = File::open(path).map_err(|source| io("open", path, source))?;
    hash_file(&file, path, what, descriptor, &mut |count| {
        progress(count);
        true
    })
    .map(drop)
}

/// Hashes an open file from its place on, and returns whether it came to the end. `go_on` is given the bytes since its last
/// call, and stops the hashing by returning false. `path` and `what` are names for errors.
///
/// # Errors
/// [`BundleError::BlobSize`] and [`BundleError::BlobDigest`] where it holds other bytes than the descriptor says, and
/// [`BundleError::Io`] where it cannot be read.
pub fn hash_file(
    file: &File,
    path: &Path,
    what: &str,
    descriptor: &Descriptor,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<bool, BundleError> {
    let mut file = file.take(descriptor.size.saturating_add(1));
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(source) => return Err(io("read", path, source)),
        };
        hasher.update(&buffer[..count]);
        total += count as u64;
        if !go_on(count as u64) {
            return Ok(false);
        }
    }
    if total != descriptor.size {
        return Err(wrong_size(what, descriptor, total));
    }
    check_digest(what, descriptor, hasher.finish())?;
    Ok(true)
}

fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|source| io("read", path, source))?;
    Ok(bytes)
}

fn check_digest(what: &str, descriptor: &Descriptor, actual: Digest) -> Result<(), BundleError> {
    if actual == descriptor.digest {
        return Ok(());
    }
    Err(BundleError::BlobDigest { what: what.to_owned(), declared: descriptor.digest, actual })
}

fn wrong_size(what: &str, descriptor: &Descriptor, actual: u64) -> BundleError {
    BundleError::BlobSize { what: what.to_owned(), digest: descriptor.digest, declared: descriptor.size, actual }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> BundleError {
    BundleError::Io { action, path: path.to_owned(), source }
}
