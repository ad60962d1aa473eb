//! `audit.jsonl`: one line for each change and each refusal, synced before the change is told.

use std::fs::File;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use recurve_bundle::Digest;
use serde::Serialize;

use super::disk;
use super::error::StoreError;

/// Bytes after which a new file is begun; the one before is kept.
const MOST: u64 = 1 << 20;

/// The open file.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: File,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    who: &'a str,
    what: &'a str,
    /// Of which model; none where it is about none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<Digest>,
    result: &'a str,
}

impl Audit {
    /// Opens the file. A line that a power cut left without its end is cut off.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("audit.jsonl");
        let file = disk::open_for_appending(&path)?;
        let bytes = disk::read(&path)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            disk::truncate(&file, whole as u64, &path)?;
        }
        Ok(Self { path, file })
    }

    /// Adds a line.
    pub(super) fn write(
        &mut self,
        what: &str,
        bundle: Option<Digest>,
        who: &str,
        result: &str,
    ) -> Result<(), StoreError> {
        if disk::length(&self.path).is_some_and(|length| length >= MOST) {
            disk::place(&self.file, &self.path, &self.path.with_extension("1.jsonl"))?;
            self.file = disk::open_for_appending(&self.path)?;
        }
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut line = serde_json::to_vec(&Line { at, who, what, bundle, result }).map_err(|error| StoreError::Io {
            action: "write",
            path: self.path.clone(),
            source: error.into(),
        })?;
        line.push(b'\n');
        disk::append(&mut self.file, &line, &self.path)
    }
}
