//! What is not believed, and why.

use std::error::Error as _;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat, Utc};
use recurve_bundle::Digest;
use tough::TransportErrorKind;
use tough::error::Error as Tough;
use tough::schema::RoleType;

use crate::store::StoreError;

/// Why metadata were not taken, or a model may not be served. What was believed before is believed still.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nobody said whom to believe.
    #[error("this node has no root of trust, so no model is signed for it: give it one with `agent-cli trust install`")]
    NoRoot,
    /// There is a root.
    #[error(
        "this node has a root of trust already, version {version}: later ones come with `agent-cli trust update`, signed by it"
    )]
    Installed {
        /// Its version.
        version: u64,
    },
    /// The model is not among those that are signed.
    #[error("no model {bundle} is signed for this node: sign it with `agent-cli trust sign`, and deploy it again")]
    NotSigned {
        /// Its digest.
        bundle: Digest,
    },
    /// Metadata are too old to be believed.
    #[error("the {role} metadata {}: renew them with `agent-cli trust refresh --dir TRUST BUNDLE`, and deploy the bundle again", since(.expired))]
    Expired {
        /// Whose.
        role: RoleType,
        /// When, where it is known.
        expired: Option<DateTime<Utc>>,
    },
    /// Nobody can say whether metadata have expired.
    #[error(
        "this node's clock says {}, and {} was reached before: set the clock; if it is right and was ahead before, run \
         `agent-cli trust reset-clock` on this node",
        shown(.now), shown(.known)
    )]
    ClockBehind {
        /// What the clock says.
        now: DateTime<Utc>,
        /// The latest time that is known to have been reached.
        known: DateTime<Utc>,
    },
    /// The clock was never set, so it says nothing of the time.
    #[error("this node's clock says {}, before {}: set the clock first", shown(.now), shown(.earliest))]
    ClockNotSet {
        /// What the clock says.
        now: DateTime<Utc>,
        /// The earliest time that a clock which was set can say.
        earliest: DateTime<Utc>,
    },
    /// Older metadata than those that are believed.
    #[error("the metadata are older than what this node has: {0}: send the newest")]
    RolledBack(String),
    /// Files that do not belong together.
    #[error("the metadata do not belong together: {0}: send all files of one state")]
    Mixed(String),
    /// More than is ever needed.
    #[error("{what} has {bytes}, and {limit} are allowed: nothing of it was read")]
    TooLarge {
        /// What.
        what: String,
        /// How many bytes or files.
        bytes: String,
        /// How many are allowed.
        limit: u64,
    },
    /// Not signed by whom this node believes, or no metadata at all.
    #[error("the metadata are not believed: {0}")]
    Invalid(String),
    /// What is believed is not what was written.
    #[error(
        "{}: is damaged: {reason}: bring back this file from a copy, or remove it, restart the daemon and give this node its root again \
         with `agent-cli trust install`; until then it believes nobody, and takes no model unless trust.mode is warn or off",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is believed cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TrustError {
    /// What `tough` says, by what its user can do about it.
    pub(super) fn of(error: &Tough) -> Self {
        match error {
            Tough::ExpiredMetadata { role, .. } => Self::Expired { role: *role, expired: None },
            // Roots come one by one.
            Tough::OlderMetadata { role: RoleType::Root, current_version, new_version, .. }
                if new_version > current_version =>
            {
                Self::Mixed(format!("root version {new_version} comes after version {current_version}"))
            }
            Tough::OlderMetadata { .. }
            | Tough::OlderSnapshotInTimestamp { .. }
            | Tough::SnapshotRoleMissing { .. }
            | Tough::SnapshotRoleRollback { .. } => Self::RolledBack(error.to_string()),
            Tough::VersionMismatch { .. } | Tough::MetaMissing { .. } => Self::Mixed(error.to_string()),
            Tough::Transport { source, .. } => Self::of_file(source),
            _ => Self::Invalid(error.to_string()),
        }
    }

    /// A file that others name is missing, longer than they say, or another one.
    fn of_file(error: &tough::TransportError) -> Self {
        let name = error.url().rsplit('/').next().unwrap_or_default();
        if error.kind() == TransportErrorKind::FileNotFound {
            return Self::Mixed(format!("{name} is named by another file, and missing"));
        }
        match error.source().and_then(|source| source.downcast_ref::<Tough>()) {
            Some(Tough::MaxSizeExceeded { max_size, specifier, .. }) => Self::TooLarge {
                what: name.to_owned(),
                bytes: format!("more bytes than {specifier} says"),
                limit: *max_size,
            },
            Some(Tough::HashMismatch { calculated, expected, .. }) => {
                Self::Mixed(format!("{name} has the digest {calculated}, and {expected} is named"))
            }
            _ => Self::Mixed(error.to_string()),
        }
    }
}

fn since(expired: &Option<DateTime<Utc>>) -> String {
    expired.as_ref().map_or_else(|| "have expired".to_owned(), |at| format!("expired on {}", shown(at)))
}

pub(super) fn shown(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
