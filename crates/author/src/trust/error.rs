//! What cannot be signed, and why.

use std::path::{Path, PathBuf};

use recurve_bundle::{BundleError, Digest, shell};

use super::Role;
use super::metadata::TIMESTAMP;
use crate::pack::PackError;

/// Why a repository of signatures was not changed. Whatever the reason, it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is a repository already.
    #[error("{}: holds signatures already: give another --dir, or go on with this one", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no repository.
    #[error("{}: holds no signatures: {}", dir.display(), instead(dir))]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// Somebody else changes it.
    #[error("{}: is being changed by another agent-cli: wait until that is done", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is not what was written.
    #[error("{}: is damaged: {reason}: restore the folder from a copy; nothing was signed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A role's keys are elsewhere.
    #[error(
        "the role {role} needs signatures of {threshold} of its keys ({}), and {found} of them are in {}: say where the others are with --keys DIR",
        keys.join(", "), shown(folders)
    )]
    NoKeys {
        /// The role.
        role: Role,
        /// Signatures that it needs.
        threshold: u64,
        /// Keys that were found.
        found: usize,
        /// Ids of its keys.
        keys: Vec<String>,
        /// Where was looked.
        folders: Vec<PathBuf>,
    },
    /// A key's file cannot be used.
    #[error("{}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// The role has that key.
    #[error("the role {role} has the key {key} already")]
    HasKey {
        /// The role.
        role: Role,
        /// The key's id.
        key: String,
    },
    /// It is not clear which key is meant.
    #[error("which key of the role {role} is to be replaced? It has {}: name one with --replace ID", keys.join(", "))]
    WhichKey {
        /// The role.
        role: Role,
        /// Ids of its keys.
        keys: Vec<String>,
    },
    /// A threshold that cannot be.
    #[error("the role {role} has {keys} keys, so its threshold can be from 1 to {keys}, not {threshold}")]
    Threshold {
        /// The role.
        role: Role,
        /// The threshold.
        threshold: u64,
        /// Its keys.
        keys: u64,
    },
    /// The bundle is not signed.
    #[error("no bundle {digest} is signed here: `agent-cli trust show` lists those that are")]
    NotSigned {
        /// Its digest.
        digest: Digest,
    },
    /// Metadata that this change leaves as they are have expired, so no device would take the rest.
    #[error(
        "the {role} metadata expired on {expired}, and devices refuse everything signed under them: sign them again first with \
         `agent-cli trust refresh --dir {} --role {role}`; nothing was changed",
        shell::quote(dir)
    )]
    Expired {
        /// Whose.
        role: Role,
        /// When, as RFC 3339.
        expired: String,
        /// The folder.
        dir: PathBuf,
    },
    /// A validity that no calendar has.
    #[error("{role} metadata cannot be valid that long: the year would have more than four digits")]
    Validity {
        /// The role.
        role: Role,
    },
    /// Cryptography or its formats failed.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// Something cannot be read or written.
    #[error(transparent)]
    Files(#[from] PackError),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

fn shown(folders: &[PathBuf]) -> String {
    let folder = |folder: &PathBuf| {
        let there = if folder.is_dir() { "" } else { " (which is no folder)" };
        format!("{}{there}", folder.display())
    };
    folders.iter().map(folder).collect::<Vec<_>>().join(", ")
}

/// What to do about a folder without signatures.
fn instead(dir: &Path) -> String {
    match dir.parent().filter(|_| dir.join(TIMESTAMP).is_file()) {
        Some(around) if around.as_os_str().is_empty() => "it is a metadata folder: name the one around it".to_owned(),
        Some(around) => format!("it is the metadata folder of {}: name that", around.display()),
        None if dir.is_file() => "it is a file: name the folder that `agent-cli trust init` made".to_owned(),
        None => "make them with `agent-cli trust init`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_in_a_command_is_quoted() {
        let expired = TrustError::Expired {
            role: Role::Targets,
            expired: "2026-01-01T00:00:00Z".to_owned(),
            dir: "it's mine".into(),
        };
        let command = r"`agent-cli trust refresh --dir 'it'\''s mine' --role targets`";
        assert!(expired.to_string().contains(command), "{expired}");
    }
}
