//! The files of a repository's folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tough::schema::{Root, Signed};

use super::metadata::{self, Files, parse};
use super::{Role, TrustError};
use crate::pack::PackError;

/// Where the metadata lie; replaced as a whole.
pub(super) const METADATA: &str = "metadata";
/// What is not signed.
const SETTINGS: &str = "trust.json";
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    format: u32,
    /// Seconds, by role.
    validity: BTreeMap<String, u64>,
}

/// The metadata of a repository, to be sent; nothing is verified, that is for who receives them.
///
/// # Errors
/// There is none, or a file cannot be read.
pub fn published(dir: &Path) -> Result<Files, TrustError> {
    let folder = dir.join(METADATA);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(TrustError::Missing { dir: dir.to_owned() });
        }
        Err(error) => return Err(PackError::io("read", &folder)(error).into()),
    };
    let mut files = Files::new();
    for entry in entries {
        let entry = entry.map_err(PackError::io("read", &folder))?;
        let path = entry.path();
        let bytes = fs::read(&path).map_err(PackError::io("read", &path))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    files.sort();
    Ok(files)
}

/// Held while the repository is changed.
pub(super) fn lock(dir: &Path) -> Result<File, TrustError> {
    let folder = File::open(dir).map_err(PackError::io("open", dir))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(fs::TryLockError::WouldBlock) => Err(TrustError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(PackError::io("lock", dir)(error).into()),
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrustError> {
    let write = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    File::create(path).and_then(write).map_err(PackError::io("write", path))?;
    Ok(())
}

pub(super) fn write_settings(dir: &Path, validity: &BTreeMap<Role, Duration>) -> Result<(), TrustError> {
    let validity = validity.iter().map(|(role, time)| (role.to_string(), time.as_secs())).collect();
    write(&dir.join(SETTINGS), &crate::pack::pretty(&Settings { format: FORMAT, validity }, SETTINGS)?)
}

pub(super) fn read_settings(dir: &Path) -> Result<BTreeMap<Role, Duration>, TrustError> {
    let path = dir.join(SETTINGS);
    let damaged = |reason: String| TrustError::Damaged { path: path.clone(), reason };
    let bytes = fs::read(&path).map_err(PackError::io("read", &path))?;
    let settings: Settings = parse(&bytes, &path)?;
    if settings.format != FORMAT {
        return Err(damaged(format!("it has format {}, and this version reads {FORMAT}", settings.format)));
    }
    let role = |(role, seconds): (&String, &u64)| Ok((role.parse().map_err(damaged)?, Duration::from_secs(*seconds)));
    settings.validity.iter().map(role).collect()
}

/// Every root of a folder, by its version.
pub(super) fn read_roots(folder: &Path) -> Result<BTreeMap<u64, Vec<u8>>, TrustError> {
    let mut roots = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(PackError::io("read", folder))? {
        let path = entry.map_err(PackError::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(version) = metadata::root_version(&name) {
            roots.insert(version, fs::read(&path).map_err(PackError::io("read", &path))?);
        }
    }
    Ok(roots)
}

/// The latest root, after each was found signed by the keys of the one before and by its own.
pub(super) fn verify_roots(roots: &BTreeMap<u64, Vec<u8>>, folder: &Path) -> Result<Root, TrustError> {
    let mut trusted: Option<Root> = None;
    for (expected, (version, bytes)) in (1..).zip(roots) {
        let path = folder.join(format!("{version}.root.json"));
        let damaged = |reason: String| TrustError::Damaged { path: path.clone(), reason };
        let root: Signed<Root> = parse(bytes, &path)?;
        if (*version, root.signed.version.get()) != (expected, expected) {
            return Err(damaged(format!("its version is {}, and {expected} comes next", root.signed.version)));
        }
        for judge in trusted.iter().chain([&root.signed]) {
            judge.verify_role(&root).map_err(|error| damaged(error.to_string()))?;
        }
        trusted = Some(root.signed);
    }
    trusted.ok_or_else(|| TrustError::Damaged { path: folder.to_owned(), reason: "it has no root".to_owned() })
}

pub(super) fn version_of(meta: Option<&tough::schema::Metafile>, path: &Path) -> Result<NonZeroU64, TrustError> {
    let damaged = || TrustError::Damaged { path: path.to_owned(), reason: "it does not name the next file".to_owned() };
    meta.map(|meta| meta.version).ok_or_else(damaged)
}
