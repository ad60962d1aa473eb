//! What the store refuses, and why.

use std::path::PathBuf;

use recurve_bundle::{BundleError, Digest};

use super::record::Stage;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another daemon has the directory.
    #[error("{}: another recurved uses this state directory: stop it, or give each its own state_dir", dir.display())]
    Locked {
        /// The state directory.
        dir: PathBuf,
    },
    /// A file of the store is not what was written.
    #[error("{}: is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer version wrote a file of the store.
    #[error("{}: has format {found}, and this version reads {known}: install the version of recurved that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// A model is not whole, or is none.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// There is no such model.
    #[error("there is no model {bundle} on this device: send its manifest first")]
    Unknown {
        /// Its digest.
        bundle: Digest,
    },
    /// A blob that is no part of the model, or has another size there.
    #[error("the manifest {bundle} names no blob {digest} of {size} bytes: nothing was written")]
    NotNamed {
        /// The model.
        bundle: Digest,
        /// The blob.
        digest: Digest,
        /// Its size, as the sender says.
        size: u64,
    },
    /// The sender and this device do not agree on what came already.
    #[error("{received} bytes of blob {digest} are here: go on there, not at {offset}")]
    Offset {
        /// The blob.
        digest: Digest,
        /// Where the sender wants to go on.
        offset: u64,
        /// Bytes that came before.
        received: u64,
    },
    /// Somebody else sends this blob.
    #[error("blob {digest} is being sent by somebody else: wait until that is done")]
    Busy {
        /// The blob.
        digest: Digest,
    },
    /// There is not enough room.
    #[error("{}: {needed} bytes are needed and {free} are free, 64 MiB kept for the system: remove a model", path.display())]
    NoRoom {
        /// The state directory.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
    },
    /// More bytes came than were declared.
    #[error("blob {digest} was declared with {size} bytes, and more came: it was thrown away")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// The stream ended early.
    #[error("blob {digest} is not complete: {received} of {size} bytes came: go on there")]
    Incomplete {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// Bytes that came.
        received: u64,
    },
    /// Other bytes came than were declared.
    #[error("blob {declared} came with other bytes ({actual}): they were thrown away: send it again")]
    WrongBytes {
        /// What was declared.
        declared: Digest,
        /// What came.
        actual: Digest,
    },
    /// The model was not prepared.
    #[error("model {bundle} is {}, and only a prepared one can be activated", stage.as_str())]
    NotPrepared {
        /// The model.
        bundle: Digest,
        /// How far it came.
        stage: Stage,
    },
    /// There is no model before the active one.
    #[error("there is no model to go back to: none was active before the present one")]
    NoPrevious,
    /// The model is needed.
    #[error("model {bundle} is the active one or the one to go back to: activate others before it is removed")]
    InUse {
        /// The model.
        bundle: Digest,
    },
}
