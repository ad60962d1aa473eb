//! What is to be sent to the collector, on the disk until it has it, within a bound.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

const FILE: &str = "outbox.db";
const BUSY: Duration = Duration::from_secs(5);

/// What a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// An `ExportMetricsServiceRequest`.
    Metrics,
    /// An `ExportTraceServiceRequest`.
    Traces,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Counts the messages.
    pub number: i64,
    /// What it is of.
    pub signal: Signal,
    /// The request, encoded: it is sent as it was made, with its own times.
    pub bytes: Vec<u8>,
}

/// Messages in the order in which they were made.
#[derive(Debug)]
pub(super) struct Outbox {
    most: u64,
    database: Mutex<Connection>,
}

impl Outbox {
    /// Opens the outbox in this folder; in memory where there is none. One that is damaged is begun anew: what it held is lost
    /// for the collector, not for the history.
    ///
    /// # Errors
    /// The folder cannot be written, or there is no memory.
    pub(super) fn open(folder: Option<&Path>, most: u64) -> rusqlite::Result<Self> {
        let Some(folder) = folder else { return Self::prepare(Connection::open_in_memory()?, most) };
        let path = folder.join(FILE);
        let open = || Self::prepare(Connection::open(&path)?, most);
        open().or_else(|error| {
            use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
            if !matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) {
                return Err(error);
            }
            tracing::warn!(%error, file = %path.display(), "what waited for the collector is damaged and dropped");
            for end in ["", "-wal", "-shm"] {
                // One that is not there need not go.
                let _ = std::fs::remove_file(format!("{}{end}", path.display()));
            }
            open()
        })
    }

    fn prepare(database: Connection, most: u64) -> rusqlite::Result<Self> {
        database.busy_timeout(BUSY)?;
        database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        // A power cut may take the last messages: the history has them.
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.pragma_update(None, "wal_autocheckpoint", 256)?;
        database.pragma_update(None, "journal_size_limit", 1 << 20)?;
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS message (
                 number INTEGER PRIMARY KEY AUTOINCREMENT,
                 signal INTEGER NOT NULL,
                 bytes BLOB NOT NULL)",
        )?;
        Ok(Self { most, database: Mutex::new(database) })
    }

    /// Adds a message. Gives the bytes of older ones that had to go for it, or its own where it is larger than the outbox.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn push(&self, signal: Signal, bytes: &[u8]) -> rusqlite::Result<u64> {
        // One that would not fit into an empty outbox leaves the others alone.
        if bytes.len() as u64 > self.most {
            return Ok(bytes.len() as u64);
        }
        let mut database = self.lock();
        let transaction = database.transaction()?;
        let number = match signal {
            Signal::Metrics => 1,
            Signal::Traces => 2,
        };
        transaction
            .prepare_cached("INSERT INTO message (signal, bytes) VALUES (?1, ?2)")?
            .execute(params![number, bytes])?;
        let mut dropped = 0;
        let mut held = held(&transaction)?;
        while held > self.most {
            let oldest: Option<(i64, i64)> = transaction
                .prepare_cached("SELECT number, length(bytes) FROM message ORDER BY number LIMIT 1")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((oldest, length)) = oldest else { break };
            transaction.prepare_cached("DELETE FROM message WHERE number = ?1")?.execute([oldest])?;
            dropped += length.unsigned_abs();
            held -= length.unsigned_abs().min(held);
        }
        transaction.commit()?;
        Ok(dropped)
    }

    /// The oldest message.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn first(&self) -> rusqlite::Result<Option<Message>> {
        self.lock()
            .prepare_cached("SELECT number, signal, bytes FROM message ORDER BY number LIMIT 1")?
            .query_row([], |row| {
                let signal = if row.get::<_, i64>(1)? == 1 { Signal::Metrics } else { Signal::Traces };
                Ok(Message { number: row.get(0)?, signal, bytes: row.get(2)? })
            })
            .optional()
    }

    /// The collector has this one, or will never take it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&self, number: i64) -> rusqlite::Result<()> {
        let database = self.lock();
        database.prepare_cached("DELETE FROM message WHERE number = ?1")?.execute([number])?;
        if held(&database)? == 0 {
            database.execute_batch("PRAGMA incremental_vacuum(64)")?;
        }
        Ok(())
    }

    /// Bytes that wait.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn held(&self) -> rusqlite::Result<u64> {
        held(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // SQLite rolls back what another holder did not finish.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(database: &Connection) -> rusqlite::Result<u64> {
    let sum: i64 = database
        .prepare_cached("SELECT coalesce(sum(length(bytes)), 0) FROM message")?
        .query_row([], |row| row.get(0))?;
    Ok(sum.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_in_order_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(Some(dir.path()), 1000).unwrap();
        assert_eq!(outbox.push(Signal::Metrics, b"one").unwrap(), 0);
        outbox.push(Signal::Traces, b"two").unwrap();
        drop(outbox);
        let outbox = Outbox::open(Some(dir.path()), 1000).unwrap();
        let first = outbox.first().unwrap().unwrap();
        assert_eq!((first.signal, first.bytes.as_slice()), (Signal::Metrics, b"one".as_slice()));
        outbox.remove(first.number).unwrap();
        let second = outbox.first().unwrap().unwrap();
        assert_eq!((second.signal, second.bytes.as_slice()), (Signal::Traces, b"two".as_slice()));
        outbox.remove(second.number).unwrap();
        assert_eq!((outbox.first().unwrap(), outbox.held().unwrap()), (None, 0));
    }

    #[test]
    fn the_oldest_goes_when_it_is_full_and_is_counted() {
        let outbox = Outbox::open(None, 100).unwrap();
        for _ in 0..4 {
            assert_eq!(outbox.push(Signal::Metrics, &[7; 25]).unwrap(), 0);
        }
        assert_eq!(outbox.push(Signal::Metrics, &[8; 30]).unwrap(), 50);
        assert_eq!((outbox.held().unwrap(), outbox.first().unwrap().unwrap().number), (80, 3));
        // One that does not fit at all is not taken.
        assert_eq!(outbox.push(Signal::Metrics, &[9; 200]).unwrap(), 200);
        assert_eq!((outbox.held().unwrap(), outbox.first().unwrap().unwrap().number), (80, 3));
    }

    #[test]
    fn a_damaged_one_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "no database, and long enough to be taken for one".repeat(50)).unwrap();
        let outbox = Outbox::open(Some(dir.path()), 100).unwrap();
        outbox.push(Signal::Metrics, b"one").unwrap();
        assert!(outbox.first().unwrap().is_some());
    }
}
