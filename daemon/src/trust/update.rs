//! Checks metadata as the specification says (5.3 to 5.6), against what is believed, without changing it.
//!
//! `tough` checks and keeps in one go: it writes each file as soon as that one is good, and does not sync. So it is given a
//! copy of what is kept, in a folder that is thrown away, and the new metadata from memory. What it found good is kept by
//! who called, in one write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::stream;
use tough::schema::{RoleType, Root, Signed};
use tough::{
    Bytes, ExpirationEnforcement, Repository, RepositoryLoader, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
use url::Url;

use super::error::TrustError;
use super::files::{Files, LIMITS, MOST_ROOT, bounded};
use super::record::{Below, Stored, Trusted};
use crate::store::disk;

/// Where the new metadata seem to lie.
const BASE: &str = "file:///metadata/";

/// Serves files from memory: what is not yet believed does not reach the disk.
#[derive(Debug, Clone)]
struct Memory(Arc<BTreeMap<String, Bytes>>);

#[tough::async_trait]
impl Transport for Memory {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().rsplit('/').next().unwrap_or_default();
        match self.0.get(name) {
            Some(bytes) => Ok(Box::pin(stream::iter([Ok(bytes.clone())]))),
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}

/// A root that is installed by hand: whoever does that vouches for it, so it has only to be whole.
pub(super) fn first(root: &[u8]) -> Result<Trusted, TrustError> {
    bounded("the root", root.len() as u64, MOST_ROOT)?;
    let invalid = |words: String| TrustError::Invalid(format!("the root is none: {words}"));
    let text = String::from_utf8(root.to_vec()).map_err(|error| invalid(error.to_string()))?;
    let signed: Signed<Root> = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    signed.signed.verify_role(&signed).map_err(|error| invalid(error.to_string()))?;
    check_root(&signed.signed)?;
    let stored = Stored { root: text, below: None, known_time: None };
    Trusted::new(stored).map_err(|error| invalid(error.to_string()))
}

/// Checks metadata against what is believed; gives what is to be believed from now on. Blocks; must not be called where
/// asynchronous code runs. `scratch`: a folder that is made and removed.
pub(super) fn verified(trusted: &Trusted, files: &Files, scratch: &Path) -> Result<Trusted, TrustError> {
    check_chain(trusted.root.version.get(), files)?;
    disk::make_scratch(scratch)?;
    let loaded = load(trusted, files, scratch);
    let removed = disk::remove_scratch(scratch);
    let loaded = loaded?;
    removed?;
    check_root(&loaded.root().signed)?;
    // Who signs without delegated roles has none that could add software of theirs.
    if loaded.targets().signed.delegations.as_ref().is_some_and(|delegated| !delegated.roles.is_empty()) {
        return Err(TrustError::Invalid(
            "the targets delegate to other roles, and no such role is believed".to_owned(),
        ));
    }
    if let Some(other) = loaded.snapshot().signed.meta.keys().find(|name| *name != "targets.json") {
        return Err(TrustError::Invalid(format!("the snapshot names {other:?}, and allowed is targets.json")));
    }
    let version = loaded.root().signed.version.get();
    let root = match files.roots.get(&version) {
        Some(bytes) if version != trusted.root.version.get() => text(bytes)?,
        _ => trusted.stored.root.clone(),
    };
    let below =
        Below { timestamp: text(&files.timestamp)?, snapshot: text(&files.snapshot)?, targets: text(&files.targets)? };
    let stored = Stored { root, below: Some(below), known_time: trusted.stored.known_time };
    Trusted::new(stored).map_err(|error| TrustError::Invalid(error.to_string()))
}

/// The specification's steps from 5.2 on, by `tough`.
fn load(trusted: &Trusted, files: &Files, scratch: &Path) -> Result<Repository, TrustError> {
    if let Some(below) = &trusted.stored.below {
        for (name, content) in
            [("timestamp.json", &below.timestamp), ("snapshot.json", &below.snapshot), ("targets.json", &below.targets)]
        {
            disk::write_scratch(&scratch.join(name), content.as_bytes())?;
        }
    }
    let internal = |error: &dyn std::fmt::Display| TrustError::Invalid(format!("they cannot be checked: {error}"));
    let base = Url::parse(BASE).map_err(|error| internal(&error))?;
    let root = trusted.stored.root.as_bytes();
    let loader = RepositoryLoader::new(&root, base.clone(), base)
        .transport(Memory(Arc::new(files.named.clone())))
        .limits(LIMITS)
        .datastore(scratch)
        .expiration_enforcement(ExpirationEnforcement::Safe);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| internal(&error))?;
    runtime.block_on(loader.load()).map_err(|error| TrustError::of(&error))
}

/// Roots follow each other without a gap: `tough` takes the first one that is missing for the end.
fn check_chain(trusted: u64, files: &Files) -> Result<(), TrustError> {
    let newer = files.roots.keys().filter(|version| **version > trusted);
    for (expected, found) in (trusted.saturating_add(1)..).zip(newer) {
        if expected != *found {
            return Err(TrustError::Mixed(format!("{expected}.root.json is missing before {found}.root.json")));
        }
    }
    Ok(())
}

/// A root has every role, and names files by version: nothing else is followed.
fn check_root(root: &Root) -> Result<(), TrustError> {
    for role in [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets] {
        if !root.roles.contains_key(&role) {
            return Err(TrustError::Invalid(format!("the root says nothing of the role {role}")));
        }
    }
    if root.consistent_snapshot {
        return Ok(());
    }
    Err(TrustError::Invalid("the root's consistent_snapshot is false, and allowed is true".to_owned()))
}

fn text(bytes: &Bytes) -> Result<String, TrustError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| TrustError::Invalid(error.to_string()))
}
