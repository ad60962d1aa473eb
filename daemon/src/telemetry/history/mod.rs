//! What was, on the disk: a record a minute, later one an hour, and events beside them, in SQLite with a write-ahead log.
//!
//! A record that [`History::append`] returned from is there after a power cut. The newest schema is [`SCHEMA`]; whatever is
//! packed in the records has a version of its own.

mod compact;
mod file;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Sample, TelemetryRecord};
use recurve_telemetry::packed::{self, PackError};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

pub use file::Opened;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of disk.
    pub bytes: u64,
    /// After so long, the minutes of an hour become one record.
    pub minutes: Duration,
    /// After so long, records are removed.
    pub hours: Duration,
}

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite refused.
    #[error("the history cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// A newer daemon wrote it.
    #[error(
        "the history is of version {found}; this daemon knows version {known}: move it away, or start the newer daemon"
    )]
    Newer {
        /// What it is.
        found: i64,
        /// What this daemon knows.
        known: i64,
    },
    /// A record cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Its folder cannot be made.
    #[error("the folder of the history cannot be made: {0}")]
    Folder(std::io::Error),
}

/// The version of the tables.
const SCHEMA: i64 = 1;

const MINUTE: i64 = 1;
const HOUR: i64 = 2;
const EVENT: i64 = 3;

/// The history of this device.
#[derive(Debug)]
pub struct History {
    store: Uuid,
    limits: Limits,
    database: Mutex<Connection>,
}

impl History {
    /// Opens the history in this folder; in memory where there is none. One that is damaged is put aside.
    ///
    /// # Errors
    /// The folder cannot be written, another daemon uses it, or a newer one did.
    pub fn open(folder: Option<&Path>, limits: Limits) -> Result<Opened, HistoryError> {
        file::open(folder, limits)
    }

    /// Whose history it is: another one with each history that is begun.
    pub fn store(&self) -> Uuid {
        self.store
    }

    /// Adds a record; when this returns it is on the disk. Gives its number.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&self, content: &Content) -> Result<u64, HistoryError> {
        let (kind, ends) = match content {
            Content::Sample(sample) => (MINUTE, end_of(sample)),
            Content::Event(event) => {
                (EVENT, event.at.map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000))
            }
        };
        let packed = packed::pack(content)?;
        let database = self.lock();
        let sequence: i64 = database
            .prepare_cached("INSERT INTO record (kind, ends, packed) VALUES (?1, ?2, ?3) RETURNING sequence")?
            .query_row(params![kind, ends, packed], |row| row.get(0))?;
        compact::keep_within(&database, self.limits.bytes)?;
        Ok(sequence.unsigned_abs())
    }

    /// The next records after this one that end after `since`, at most so many, and the number up to which was looked; none
    /// where there are no more. Of all metrics and events, or of these metrics only.
    ///
    /// # Errors
    /// The disk refuses. A record that is damaged is left out.
    pub fn read(
        &self,
        after: u64,
        since: Option<SystemTime>,
        metrics: &[String],
        most: usize,
    ) -> Result<Option<(Vec<TelemetryRecord>, u64)>, HistoryError> {
        let since = since.map_or(i64::MIN, millis);
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<(i64, Option<i64>, Vec<u8>)> = {
            let database = self.lock();
            let mut statement = database.prepare_cached(
                "SELECT sequence, first, packed FROM record WHERE sequence > ?1 AND ends > ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let rows =
                statement.query_map(params![after, since, most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        let Some((last, ..)) = rows.last() else { return Ok(None) };
        let last = last.unsigned_abs();
        let record = |(sequence, first, packed): (i64, Option<i64>, Vec<u8>)| {
            let content = match metrics {
                [] => packed::unpack(&packed).map(Some),
                some => packed::unpack_only(&packed, some).map(|sample| sample.map(Content::Sample)),
            };
            let content = content
                .inspect_err(|error| tracing::warn!(sequence, %error, "a record of the history is left out"))
                .ok()??;
            Some(TelemetryRecord {
                sequence: sequence.unsigned_abs(),
                first: first.unwrap_or(sequence).unsigned_abs(),
                content: Some(content),
            })
        };
        Ok(Some((rows.into_iter().filter_map(record).collect(), last)))
    }

    /// The newest event.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn last_event(&self) -> Result<Option<recurve_proto::v1::NodeEvent>, HistoryError> {
        let newest = self
            .lock()
            .prepare_cached("SELECT packed FROM record WHERE kind = ?1 ORDER BY sequence DESC LIMIT 1")?
            .query_row([EVENT], |row| row.get::<_, Vec<u8>>(0))
            .optional()?;
        Ok(match newest.map(|packed| packed::unpack(&packed)) {
            Some(Ok(Content::Event(event))) => Some(event),
            _ => None,
        })
    }

    /// Puts together and removes what is old enough. Small steps: between them others may read and write.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn compact(&self, now: SystemTime) -> Result<(), HistoryError> {
        let now = millis(now);
        let span = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        compact::remove_before(&self.lock(), now.saturating_sub(span(self.limits.hours)))?;
        while compact::merge_an_hour(&mut self.lock(), now.saturating_sub(span(self.limits.minutes)))? {}
        Ok(())
    }

    /// The history is closed in order: the next start need not look whether it is whole.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(&self) -> Result<(), HistoryError> {
        file::mark_clean(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // SQLite rolls back what another holder did not finish.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> i64 {
    let since = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    at.duration_since(UNIX_EPOCH).map_or_else(|before| -since(before.duration()), since)
}

/// When a sample's interval ended, in milliseconds since 1970.
fn end_of(sample: &Sample) -> i64 {
    let begin = sample.begin.map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000);
    let length = sample.length.map_or(0, |length| length.seconds * 1000 + i64::from(length.nanos) / 1_000_000);
    begin.saturating_add(length)
}

#[cfg(test)]
mod tests;
