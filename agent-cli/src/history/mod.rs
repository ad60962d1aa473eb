//! The history of devices, gathered into one file of SQLite's: each record once, whatever breaks off.
//!
//! `gather` asks the devices; a thread that alone owns the file writes what they say (`write`), records and cursor in one
//! transaction. `read` gives it back, `summary` and `timeline` make numbers and lines of it, `forward` makes samples of it again.

pub(crate) mod forward;
pub(crate) mod gather;
pub(crate) mod read;
mod schema;
pub(crate) mod summary;
pub(crate) mod timeline;
mod write;

#[cfg(test)]
pub(crate) mod made;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::exit::Failure;

/// A billion.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// What was gathered.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    db: Connection,
    /// Ids that were looked up: of a device's series by metric and attributes.
    series: HashMap<(i64, String, String), i64>,
}

impl Store {
    /// Opens the file, and makes it where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), db: schema::open(path)?, series: HashMap::new() })
    }

    /// The result of something done with the file.
    fn done<T>(&self, result: rusqlite::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| schema::failure(&self.path, &error))
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A time in nanoseconds as the devices spell it; out of range it is the nearest that there is.
fn nanos(at: prost_types::Timestamp) -> i64 {
    at.seconds.saturating_mul(SECOND).saturating_add(at.nanos.into())
}

fn timestamp(nanos: i64) -> prost_types::Timestamp {
    // Below a billion.
    let rest = i32::try_from(nanos.rem_euclid(SECOND)).unwrap_or(0);
    prost_types::Timestamp { seconds: nanos.div_euclid(SECOND), nanos: rest }
}

fn seconds(length: Option<prost_types::Duration>) -> f64 {
    length.map_or(0.0, |length| length.seconds as f64 + f64::from(length.nanos) / 1e9)
}

#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
fn as_nanos(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}
