//! Signs bundles: a repository of TUF metadata (The Update Framework, specification 1.0) with the roles root, targets,
//! snapshot and timestamp, and nobody beside them.
//!
//! A target is a bundle's manifest, under its digest. The manifest names every blob by digest, so its signature covers them
//! all. The metadata travel inside the bundle, as a manifest that refers to the model's.

mod attach;
mod error;
mod expiry;
mod folder;
mod keys;
mod metadata;
mod repository;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use attach::{attach, attached};
pub use error::TrustError;
pub use folder::published;
pub use keys::Keys;
pub use metadata::{Files, Versions, newer};
pub use repository::{Changed, Init, KeyState, Repository, RoleState};
use tough::schema::RoleType;

/// Who signs what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Says which keys the roles have, its own included.
    Root,
    /// Says which bundles are good.
    Targets,
    /// Says which version of the targets is the present one.
    Snapshot,
    /// Says which snapshot is the present one, and until when that is to be believed.
    Timestamp,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    /// How long its metadata are valid where nobody says otherwise: who signs by hand does not sign every day.
    pub fn validity(self) -> Duration {
        const DAY: u64 = 86_400;
        Duration::from_secs(
            DAY * match self {
                Self::Root => 5 * 365,
                Self::Targets => 365,
                Self::Snapshot | Self::Timestamp => 30,
            },
        )
    }

    fn kind(self) -> RoleType {
        match self {
            Self::Root => RoleType::Root,
            Self::Targets => RoleType::Targets,
            Self::Snapshot => RoleType::Snapshot,
            Self::Timestamp => RoleType::Timestamp,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no role: write root, targets, snapshot or timestamp"))
    }
}
