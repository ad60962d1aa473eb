//! What can be wrong with a bundle, each cause under its own name, and what to do about it.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::digest::Digest;

/// Why a bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file or directory that every bundle has is not there.
    #[error("{path}: not found: {hint}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What that means, and what to do.
        hint: &'static str,
    },
    /// The operating system refused to read.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What was tried, as a verb: "read", "open".
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A blob or file is a symbolic link, a directory, a pipe or a device.
    #[error("{path}: is {kind}; allowed is a regular file: copy the bundle again with its links resolved")]
    NotRegular {
        /// The offending path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file that has to be read whole is larger than any honest bundle's.
    #[error("{file}: has {size} bytes; at most {limit} are allowed: this is not a bundle of Recurve, or it is damaged")]
    TooLarge {
        /// Path, or the layer's filepath.
        file: String,
        /// Declared or actual bytes.
        size: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// A JSON file is not JSON, or a field is absent or of another type.
    #[error("{file}: {}{problem}: it is damaged, or not of a bundle: copy or export the bundle again", place(field))]
    Json {
        /// Path, or the layer's filepath.
        file: String,
        /// Where in the document, `.` for its top.
        field: String,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A field holds a value that is not allowed there.
    #[error("{file}: field `{field}`: `{value}` is not allowed; allowed: {allowed}")]
    Value {
        /// Path, or the layer's filepath.
        file: String,
        /// Where in the document.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        allowed: String,
    },
    /// A file of a format that this version cannot read.
    #[error(
        "{file}: format {found}, but this version reads format {supported}: update Recurve, or export the model again"
    )]
    UnsupportedFormat {
        /// The layer's filepath.
        file: &'static str,
        /// The format that it declares.
        found: u64,
        /// The format that is read.
        supported: u32,
    },
    /// A blob that the manifest names is not in `blobs/sha256`.
    #[error("{what}: blob {digest} is missing: the copy is incomplete: copy or export the bundle again")]
    BlobMissing {
        /// "manifest", "config", or the layer's filepath.
        what: String,
        /// Its digest.
        digest: Digest,
    },
    /// A blob is shorter or longer than declared.
    #[error(
        "{what}: blob {digest} has {actual} bytes instead of {declared}: the copy is incomplete or damaged: copy or export the bundle again"
    )]
    BlobSize {
        /// "manifest", "config", or the layer's filepath.
        what: String,
        /// Its digest.
        digest: Digest,
        /// Bytes, by its descriptor.
        declared: u64,
        /// Bytes, on disk.
        actual: u64,
    },
    /// A blob's bytes are not those that its digest names.
    #[error("{what}: blob {declared} holds other bytes ({actual}): it is damaged: copy or export the bundle again")]
    BlobDigest {
        /// "manifest", "config", or the layer's filepath.
        what: String,
        /// The digest in the descriptor.
        declared: Digest,
        /// The digest of the bytes on disk.
        actual: Digest,
    },
    /// The manifest has no layer with this filepath.
    #[error("manifest: no layer has the filepath `{filepath}`, which every bundle has: export the model again")]
    LayerMissing {
        /// The value looked for in `org.cncf.model.filepath`.
        filepath: &'static str,
    },
    /// The golden test cannot be used.
    #[error("golden.safetensors: {problem}: export the model again")]
    Golden {
        /// What is wrong.
        problem: String,
    },
}

impl BundleError {
    /// What is wrong with the blob, in words that do not name it; `None` where the error says nothing of what it holds.
    pub fn damage(&self) -> Option<String> {
        match self {
            Self::BlobMissing { .. } => Some("the file is missing".to_owned()),
            Self::BlobSize { declared, actual, .. } => {
                Some(format!("the file has {actual} bytes instead of {declared}"))
            }
            Self::BlobDigest { actual, .. } => Some(format!("the file holds other bytes ({actual})")),
            Self::Io { source, .. } if source.kind() == ErrorKind::NotFound => Some("the file is missing".to_owned()),
            Self::Io { source, .. } if is_unreadable(source) => Some(format!("the disk cannot read it: {source}")),
            _ => None,
        }
    }

    /// The blob that holds other bytes than its digest says, where that is what is wrong.
    pub fn damaged_blob(&self) -> Option<Digest> {
        match self {
            Self::BlobSize { digest, .. } => Some(*digest),
            Self::BlobDigest { declared, .. } => Some(*declared),
            _ => None,
        }
    }
}

/// Whether Linux cannot bring in a file's bytes: its disk fails, or the file system's own checks do.
///
/// `WeightsError::is_unreadable` in `crates/runtime` has the same list; a test of the store compares them.
pub fn is_unreadable(error: &io::Error) -> bool {
    /// The disk reports an error (EIO), a checksum of the file system differs (EBADMSG), its structures are damaged (EUCLEAN), or
    /// the memory that holds the bytes is faulty (EHWPOISON).
    const CODES: [i32; 4] = [5, 74, 117, 133];
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

/// Where in a document, as the beginning of a message; nothing where the document as a whole is wrong.
fn place(field: &str) -> String {
    match field {
        "." => String::new(),
        field => format!("field `{field}`: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(source: io::Error) -> Option<String> {
        BundleError::Io { action: "read", path: "blob".into(), source }.damage()
    }

    #[test]
    fn what_the_disk_and_the_file_system_report_is_damage_and_a_refusal_is_not() {
        for (name, code) in [("EIO", 5), ("EBADMSG", 74), ("EUCLEAN", 117), ("EHWPOISON", 133)] {
            let words = damage(io::Error::from_raw_os_error(code));
            assert!(words.is_some_and(|words| words.starts_with("the disk cannot read it: ")), "{name}");
        }
        for (name, code) in [("EINTR", 4), ("EACCES", 13), ("EMFILE", 24), ("ELOOP", 40)] {
            assert_eq!(damage(io::Error::from_raw_os_error(code)), None, "{name}");
        }
    }

    #[test]
    fn a_blob_that_is_missing_is_damage() {
        let digest = Digest::of(b"x");
        let missing = BundleError::BlobMissing { what: "weights/a.bin".to_owned(), digest };
        assert_eq!(missing.damage().as_deref(), Some("the file is missing"));
        assert_eq!(damage(ErrorKind::NotFound.into()).as_deref(), Some("the file is missing"));
    }
}
