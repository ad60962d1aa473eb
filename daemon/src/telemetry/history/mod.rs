//! What was, on the disk: a record a minute, later one an hour, and events beside them, in SQLite with a write-ahead log.
//!
//! A record that [`History::append`] returned from is there after a power cut. The newest schema is [`SCHEMA`]; whatever is
//! packed in the records has a version of its own.

mod compact;
mod file;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Sample, TelemetryRecord};
use recurve_telemetry::packed::{self, PackError};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of disk.
    pub bytes: u64,
    /// After so much recorded time, the minutes of an hour become one record.
    pub minutes: Duration,
    /// After so much recorded time, records are removed.
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
    /// The system does not say which file it is.
    #[error("the file of the history cannot be examined: {0}")]
    File(std::io::Error),
}

/// A history that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The history.
    pub history: History,
    /// Where the one that was damaged is now.
    pub damaged: Option<PathBuf>,
}

/// The version of the tables.
const SCHEMA: i64 = 1;

const MINUTE: i64 = 1;
const HOUR: i64 = 2;
const EVENT: i64 = 3;

/// The history of this device.
#[derive(Debug)]
pub struct History {
    /// Where it is, or should be.
    folder: Option<PathBuf>,
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    store: Uuid,
    database: Connection,
    /// The folder does not hold it: it is in memory, or its file was removed or moved away.
    homeless: bool,
    /// Something went wrong with it: the next start looks whether it is whole.
    failed: bool,
    /// The disk did not take the last record.
    refused: bool,
    /// Device and inode of the file; none in memory.
    file: Option<(u64, u64)>,
}

impl History {
    /// Opens the history in this folder; in memory where there is none. One that is damaged is put aside.
    ///
    /// # Errors
    /// The folder cannot be written, another daemon uses it, or a newer one did.
    pub fn open(folder: Option<&Path>, limits: Limits) -> Result<Opened, HistoryError> {
        let (opened, damaged) = file::open(folder)?;
        let history = Self { folder: folder.map(Path::to_owned), limits, open: Mutex::new(opened) };
        Ok(Opened { history, damaged })
    }

    /// A history in memory that goes to this folder as soon as it can ([`Self::settle`]).
    ///
    /// # Errors
    /// There is no memory.
    pub fn homeless(folder: &Path, limits: Limits) -> Result<Self, HistoryError> {
        let (mut opened, _) = file::open(None)?;
        opened.homeless = true;
        Ok(Self { folder: Some(folder.to_owned()), limits, open: Mutex::new(opened) })
    }

    /// Whose history it is: another one with each history that is begun.
    pub fn store(&self) -> Uuid {
        self.lock().store
    }

    /// Whether it should be in its folder and is not.
    pub fn is_homeless(&self) -> bool {
        self.lock().homeless
    }

    /// Whether records that should be on the disk are in memory: all of them, or those that it did not take.
    pub fn is_in_memory(&self) -> bool {
        let open = self.lock();
        open.homeless || open.refused
    }

    /// Looks whether the file is still there under its name. A file that was removed or replaced is homeless: records go to
    /// it until [`Self::settle`] finds or makes another one, or until it has its name again. An error other than "not
    /// found" says nothing about the file, and changes nothing.
    pub fn look(&self) {
        let mut open = self.lock();
        let Some((folder, identity)) = self.folder.as_deref().zip(open.file) else { return };
        let is_there = match file::identity(folder) {
            Ok(found) => found == Some(identity),
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "the file of the history cannot be examined");
                return;
            }
        };
        match (is_there, open.homeless) {
            (false, false) => {
                open.homeless = true;
                tracing::warn!(folder = %folder.display(), "the file of the history was removed: it is made again");
            }
            (true, true) => {
                open.homeless = false;
                tracing::info!(folder = %folder.display(), "the file of the history is in its place again");
            }
            (true, false) | (false, true) => {}
        }
    }

    /// Moves to the folder where it could not be before; whether it did. The file that it finds there, or makes, gets the
    /// records that it does not hold yet.
    ///
    /// # Errors
    /// It still cannot.
    pub fn settle(&self) -> Result<bool, HistoryError> {
        let mut open = self.lock();
        let Some(folder) = self.folder.as_ref().filter(|_| open.homeless) else { return Ok(false) };
        let (mut settled, _) = file::open(Some(folder))?;
        file::copy(&open, &mut settled)?;
        *open = settled;
        Ok(true)
    }

    /// Adds a record; when this returns it is on the disk. Gives its number.
    ///
    /// # Errors
    /// The disk refuses: nothing was added.
    pub fn append(&self, content: &Content) -> Result<u64, HistoryError> {
        let (kind, ends) = match content {
            Content::Sample(sample) => (MINUTE, end_of(sample)),
            Content::Event(event) => {
                (EVENT, event.at.map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000))
            }
        };
        let packed = packed::pack(content)?;
        let length = length_of(content);
        let mut open = self.lock();
        let appended = match open.append(kind, ends, length, &packed) {
            Ok(sequence) => Ok(sequence),
            Err(error) => self
                .begin_anew_if_damaged(&mut open, error)
                .and_then(|()| Ok(open.append(kind, ends, length, &packed)?)),
        };
        open.refused = appended.is_err();
        let sequence = appended.inspect_err(|_| open.failed = true)?;
        // What is there stays there: a bound that cannot be kept now is kept with the next record.
        if let Err(error) = compact::keep_within(&open.database, self.limits.bytes) {
            tracing::debug!(%error, "the history cannot be made smaller");
        }
        Ok(sequence.unsigned_abs())
    }

    /// Puts the file aside that is damaged, and begins a new one; any other error is given back.
    fn begin_anew_if_damaged(&self, open: &mut Open, error: rusqlite::Error) -> Result<(), HistoryError> {
        let Some(folder) = self.folder.as_ref().filter(|_| !open.homeless && file::is_damage(&error)) else {
            return Err(error.into());
        };
        // The damaged one is closed first. Where no new one can be made now, that is tried again with each record.
        (*open, _) = file::open(None)?;
        open.homeless = true;
        match file::begin_anew(folder) {
            Ok((opened, _)) => *open = opened,
            Err(error) => tracing::warn!(%error, "the new history is in memory until the disk takes it"),
        }
        tracing::error!(
            event = recurve_telemetry::event::HISTORY_LOST.name,
            folder = %folder.display(),
            %error,
            "the history is damaged: it is put aside, and a new one is begun"
        );
        Ok(())
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
        let rows = {
            let mut open = self.lock();
            match open.rows(after, since, most) {
                Ok(rows) => rows,
                Err(error) => {
                    self.begin_anew_if_damaged(&mut open, error)?;
                    open.rows(after, since, most)?
                }
            }
        };
        let Some((last, ..)) = rows.last() else { return Ok(None) };
        let last = last.unsigned_abs();
        let record = |(sequence, first, packed): Row| {
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
            .database
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
    pub fn compact(&self) -> Result<(), HistoryError> {
        while compact::place(&mut self.lock().database)? {}
        let Some(recorded) = compact::recorded(&self.lock().database)? else { return Ok(()) };
        let before = |span: Duration| recorded.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        compact::remove_before(&self.lock().database, before(self.limits.hours))?;
        while compact::merge_an_hour(&mut self.lock().database, before(self.limits.minutes))? {}
        Ok(())
    }

    /// The history is closed in order: the next start need not look whether it is whole, unless something went wrong with it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(&self) -> Result<(), HistoryError> {
        let open = self.lock();
        if open.failed { Ok(()) } else { file::mark_clean(&open.database) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // SQLite rolls back what another holder did not finish.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number, first, and what is packed.
type Row = (i64, Option<i64>, Vec<u8>);

impl Open {
    /// Adds a row: committed, or not at all.
    fn append(&mut self, kind: i64, ends: i64, length: i64, packed: &[u8]) -> rusqlite::Result<i64> {
        let transaction = self.database.transaction()?;
        let before: Option<Option<i64>> = transaction
            .prepare_cached("SELECT recorded FROM record ORDER BY sequence DESC LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        // Behind a record that has no place yet, this one gets its own when that one does.
        let recorded = before.unwrap_or(Some(0)).map(|before| before.saturating_add(length));
        transaction
            .prepare_cached("INSERT INTO record (kind, ends, recorded, packed) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![kind, ends, recorded, packed])?;
        let sequence = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(sequence)
    }

    fn rows(&self, after: i64, since: i64, most: i64) -> rusqlite::Result<Vec<Row>> {
        let mut statement = self.database.prepare_cached(
            "SELECT sequence, first, packed FROM record WHERE sequence > ?1 AND ends > ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let rows =
            statement.query_map(params![after, since, most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
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
    begin.saturating_add(length_of_sample(sample))
}

fn length_of_sample(sample: &Sample) -> i64 {
    let millis = |length: prost_types::Duration| length.seconds * 1000 + i64::from(length.nanos) / 1_000_000;
    sample.length.map_or(0, millis).max(0)
}

/// The time that a record stands for, in milliseconds: none for an event.
fn length_of(content: &Content) -> i64 {
    match content {
        Content::Sample(sample) => length_of_sample(sample),
        Content::Event(_) => 0,
    }
}

#[cfg(test)]
mod tests;
