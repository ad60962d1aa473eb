//! Metadata files: signed, checked, and which of two sets is the newer one.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use recurve_bundle::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tough::schema::{Hashes, Metafile, RoleKeys, Root, Signature, Signed};

use super::keys::{SigningKey, short};
use super::{Role, TrustError};

/// Metadata files by name, such as `2.root.json`.
pub type Files = Vec<(String, Vec<u8>)>;

/// The version of the specification that is followed.
pub(super) const SPEC_VERSION: &str = "1.0.0";
/// Where the present state begins.
pub(super) const TIMESTAMP: &str = "timestamp.json";

/// How new a set of metadata is: a new root counts more than anything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    /// Of the latest root.
    pub root: u64,
    /// Of the timestamp.
    pub timestamp: u64,
}

impl Versions {
    /// What these files say of themselves; nothing is verified.
    ///
    /// # Errors
    /// There is no root or no timestamp, or that cannot be read.
    pub fn of(files: &Files) -> Result<Self, TrustError> {
        let damaged = |reason: &str| TrustError::Damaged { path: PathBuf::from(TIMESTAMP), reason: reason.to_owned() };
        let root = files.iter().filter_map(|(name, _)| root_version(name)).max();
        let root = root.ok_or_else(|| damaged("no root metadata is beside it"))?;
        let timestamp = files.iter().find(|(name, _)| name == TIMESTAMP).ok_or_else(|| damaged("it is missing"))?;
        let timestamp: Head = parse(&timestamp.1, Path::new(TIMESTAMP))?;
        Ok(Self { root, timestamp: timestamp.signed.version })
    }
}

#[derive(Deserialize)]
struct Head {
    signed: HeadSigned,
}

#[derive(Deserialize)]
struct HeadSigned {
    version: u64,
}

/// The newer of two sets of metadata; the first where they are equally new.
///
/// # Errors
/// One of them is none.
pub fn newer(first: Files, second: Files) -> Result<Files, TrustError> {
    Ok(if Versions::of(&second)? > Versions::of(&first)? { second } else { first })
}

/// The number in `N.root.json`, written as it must be.
pub(super) fn root_version(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".root.json")?;
    number.parse().ok().filter(|version: &u64| version.to_string() == number)
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, TrustError> {
    serde_json::from_slice(bytes)
        .map_err(|error| TrustError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// A role's metadata with its bytes, as they are hashed and sent.
#[derive(Debug, Clone)]
pub(super) struct Written<T> {
    pub(super) role: T,
    pub(super) bytes: Vec<u8>,
}

impl<T: tough::schema::Role + DeserializeOwned> Written<T> {
    /// Reads metadata and checks that `root` believes them: what is signed again is vouched for.
    pub(super) fn read(bytes: Vec<u8>, path: &Path, root: &Root) -> Result<Self, TrustError> {
        let signed: Signed<T> = parse(&bytes, path)?;
        root.verify_role(&signed)
            .map_err(|error| TrustError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { role: signed.signed, bytes })
    }
}

impl<T: tough::schema::Role> Written<T> {
    /// What others say of this file.
    pub(super) fn described(&self) -> Metafile {
        Metafile {
            length: Some(self.bytes.len() as u64),
            hashes: Some(sha256(&self.bytes)),
            version: self.role.version(),
            _extra: HashMap::new(),
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> Hashes {
    let digest: Vec<u8> = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec();
    Hashes { sha256: digest.into(), _extra: HashMap::new() }
}

/// The digest that a target's hash is.
pub(super) fn digest(hashes: &Hashes) -> Option<Digest> {
    <[u8; 32]>::try_from(hashes.sha256.to_vec()).ok().map(Digest::from_bytes)
}

/// Signs metadata with enough keys of their role for each of these roots: the one that is in force, and, for a root, the
/// new one as well.
pub(super) fn sign<T: tough::schema::Role + Serialize>(
    role: T,
    of: Role,
    roots: &[&Root],
    keys: &[SigningKey],
    folders: &[PathBuf],
) -> Result<Written<T>, TrustError> {
    let failed = |error: &dyn std::fmt::Display| TrustError::Sign(error.to_string());
    let message = role.canonical_form().map_err(|error| failed(&error))?;
    let mut signatures: Vec<Signature> = Vec::new();
    for root in roots {
        let wanted = role_keys(root, of)?;
        let named = |id: &[u8]| wanted.keyids.iter().any(|keyid| **keyid == *id);
        let own: Vec<&SigningKey> = keys.iter().filter(|key| named(&key.id)).collect();
        if (own.len() as u64) < wanted.threshold.get() {
            return Err(TrustError::NoKeys {
                role: of,
                threshold: wanted.threshold.get(),
                found: own.len(),
                keys: wanted.keyids.iter().map(|id| short(id)).collect(),
                folders: folders.to_vec(),
            });
        }
        for key in own {
            if signatures.iter().all(|signature| *signature.keyid != *key.id) {
                signatures.push(Signature { keyid: key.id.clone().into(), sig: key.sign(&message).into() });
            }
        }
    }
    let signed = Signed { signed: role, signatures };
    let mut bytes = serde_json::to_vec_pretty(&signed).map_err(|error| failed(&error))?;
    bytes.push(b'\n');
    Ok(Written { role: signed.signed, bytes })
}

pub(super) fn role_keys(root: &Root, role: Role) -> Result<&RoleKeys, TrustError> {
    root.roles.get(&role.kind()).ok_or_else(|| TrustError::Damaged {
        path: PathBuf::from(format!("{}.root.json", root.version)),
        reason: format!("it says nothing of the role {role}"),
    })
}

/// The version after this one.
pub(super) fn next(version: NonZeroU64) -> Result<NonZeroU64, TrustError> {
    version.checked_add(1).ok_or_else(|| TrustError::Sign("no version is left".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: u64, timestamp: u64) -> Files {
        let timestamp = format!("{{\"signed\": {{\"version\": {timestamp}}}}}").into_bytes();
        (1..=root).map(|n| (format!("{n}.root.json"), vec![])).chain([(TIMESTAMP.to_owned(), timestamp)]).collect()
    }

    #[test]
    fn a_newer_root_counts_more_than_a_newer_timestamp() {
        for (first, second, expected) in
            [((1, 3), (1, 4), (1, 4)), ((1, 4), (1, 3), (1, 4)), ((2, 1), (1, 900), (2, 1)), ((1, 1), (2, 1), (2, 1))]
        {
            let newer = newer(files(first.0, first.1), files(second.0, second.1)).unwrap();
            assert_eq!(Versions::of(&newer).unwrap(), Versions { root: expected.0, timestamp: expected.1 });
        }
        assert!(Versions::of(&vec![]).is_err());
    }

    #[test]
    fn names_of_roots_have_one_spelling() {
        assert_eq!(root_version("12.root.json"), Some(12));
        for wrong in ["root.json", "012.root.json", "+1.root.json", "1.targets.json", "-1.root.json"] {
            assert_eq!(root_version(wrong), None, "{wrong}");
        }
    }
}
