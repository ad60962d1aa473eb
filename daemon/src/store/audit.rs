//! `audit.jsonl`: one line for each change and each refusal.
//!
//! A change and its line are one step: the line is written into the record with the change, and into this file after it. A
//! line that a crash or a full disk kept from here is added when the store is opened, or with the next one.

use std::fs::File;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use recurve_bundle::Digest;
use serde::{Deserialize, Serialize};

use super::disk;
use super::error::StoreError;

/// Bytes after which a new file is begun; the one before is kept.
const MOST: u64 = 1 << 20;

/// Who the daemon itself is, in the audit.
pub(crate) const SELF: &str = "recurved";

/// The open file.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    /// None where the last one was full and the next one could not be opened yet.
    file: Option<File>,
    /// Number of the last line.
    last: u64,
}

/// Who did what, when, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts the lines, from 1.
    pub number: u64,
    /// RFC 3339, by the device's clock.
    pub at: String,
    /// Who asked for it.
    pub who: String,
    /// What it is.
    pub what: String,
    /// Of which model; none where it is of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// `done`, or why not.
    pub result: String,
}

impl Line {
    pub(super) fn new(number: u64, what: &str, bundle: Option<Digest>, who: &str, result: &str) -> Self {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        Self { number, at, who: who.to_owned(), what: what.to_owned(), bundle, result: result.to_owned() }
    }
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
        let last = match number(&bytes[..whole]) {
            // The file was begun anew, and nothing came since.
            None => disk::read_if_there(&full(&path))?.and_then(|bytes| number(&bytes)).unwrap_or(0),
            Some(last) => last,
        };
        Ok(Self { path, file: Some(file), last })
    }

    /// The number of the last line.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The lines after this one that are kept.
    pub(super) fn after(&self, number: u64) -> Result<Vec<Line>, StoreError> {
        let mut lines = Vec::new();
        for path in [full(&self.path), self.path.clone()] {
            let bytes = disk::read_if_there(&path)?.unwrap_or_default();
            let read = bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
            lines.extend(read.filter(|line| line.number > number));
        }
        Ok(lines)
    }

    /// Adds a line, if it is not there.
    pub(super) fn write(&mut self, line: &Line) -> Result<(), StoreError> {
        if line.number <= self.last {
            return Ok(());
        }
        if let Some(full_up) = self.file.take_if(|_| disk::length(&self.path) >= Some(MOST)) {
            disk::place(&full_up, &self.path, &full(&self.path))?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(disk::open_for_appending(&self.path)?),
        };
        let length = disk::length(&self.path).unwrap_or(0);
        let mut bytes = serde_json::to_vec(line).map_err(|error| StoreError::Io {
            action: "write",
            path: self.path.clone(),
            source: error.into(),
        })?;
        bytes.push(b'\n');
        let written = disk::append(file, &bytes, &self.path);
        match written {
            Ok(()) => self.last = line.number,
            // Half a line must not stand before the next one.
            Err(_) => disk::truncate(file, length, &self.path)?,
        }
        written
    }
}

/// Where a full file goes.
fn full(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

/// The number of the last line that can be read.
fn number(bytes: &[u8]) -> Option<u64> {
    let lines = bytes.split(|&byte| byte == b'\n').rev();
    lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()).map(|line| line.number).next()
}
