//! What can go wrong with a registry, each cause under its own name, and what to do about it.

use std::path::PathBuf;

use recurve_bundle::{BundleError, Digest};

use crate::reference::Repository;

/// Why something with a registry did not work.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nothing answers.
    #[error("cannot reach the registry {registry}: {cause}: is its name right, is it up, does this machine reach it?")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// Why, in the system's words.
        cause: String,
    },
    /// Its certificate is not accepted.
    #[error(
        "the registry {registry} shows a certificate that is not accepted ({cause}): give the file of its authority \
         (--registry-ca, or the device's `registry.ca`), or allow plain HTTP if it has no TLS"
    )]
    Untrusted {
        /// Host and port.
        registry: String,
        /// Why, in the words of TLS.
        cause: String,
    },
    /// The connection broke.
    #[error(
        "{repository}: {what}: the connection to the registry broke: {cause}: run it again, it goes on where it was"
    )]
    Lost {
        /// Where.
        repository: Repository,
        /// What was on its way.
        what: String,
        /// Why.
        cause: String,
    },
    /// It wants to know who asks.
    #[error("{repository}: {what}: the registry wants credentials, and there are none for it: `skopeo login {}` writes them to auth.json", repository.registry())]
    NoCredentials {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
    },
    /// It knows who asks, and refuses.
    #[error("{repository}: {what}: the registry refuses {who}: {said}: check user, password and their rights there")]
    Refused {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
        /// As whom.
        who: String,
        /// Its words.
        said: String,
    },
    /// It has no such thing.
    #[error("{repository}: {what}: the registry has no such thing: check repository, tag and digest, or push it first")]
    NotFound {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
    },
    /// What it gives is not what its digest or size says.
    #[error("{repository}: {what}: the registry gives wrong bytes: {problem}: nothing of it is used: push it again")]
    WrongBytes {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// It has damaged bytes under these digests, and does not take the good ones.
    #[error(
        "{repository}: the registry has damaged bytes under {}, and dropped the good ones that were sent: remove them from \
         its storage (docker-registry: blobs/sha256/XX/HEX/data), then push again",
        list(digests)
    )]
    KeepsDamaged {
        /// Where.
        repository: Repository,
        /// Of blobs and manifests.
        digests: Vec<Digest>,
    },
    /// It is a model's manifest or a referrer's neither by form nor by content.
    #[error("{repository}: {what}: {source}")]
    NotABundle {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
        /// What is wrong.
        source: Box<BundleError>,
    },
    /// Any other answer that was not expected.
    #[error("{repository}: {what}: the registry answers with status {status}: {said}")]
    Answer {
        /// Where.
        repository: Repository,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        said: String,
    },
    /// The bundle that is to be pushed cannot be used.
    #[error(transparent)]
    Bundle(Box<BundleError>),
    /// A file of the bundle cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file with credentials cannot be used.
    #[error("{}: {problem}: correct it, or name another", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// TLS or HTTP cannot be set up.
    #[error("the registry {registry} cannot be asked: {problem}")]
    Setup {
        /// Host and port.
        registry: String,
        /// What is wrong.
        problem: String,
    },
}

impl RegistryError {
    /// Whether the same may work in a while.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Answer { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<BundleError> for RegistryError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(Box::new(error))
    }
}
