//! What is to be sent to the collector, on the disk until it has it, within a bound.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

const FILE: &str = "outbox.db";
const BUSY: Duration = Duration::from_millis(500);

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
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Connection,
    /// Bytes of all messages.
    held: u64,
}

impl Signal {
    /// Each has a queue of its own: one that the collector does not take keeps up no other.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Traces];

    /// As it is written down.
    fn number(self) -> i64 {
        match self {
            Self::Metrics => 1,
            Self::Traces => 2,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }
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
                let mut file = path.clone().into_os_string();
                file.push(end);
                let _ = std::fs::remove_file(file);
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
                 bytes BLOB NOT NULL);
             CREATE INDEX IF NOT EXISTS message_signal ON message (signal, number)",
        )?;
        let held: i64 =
            database.query_row("SELECT coalesce(sum(length(bytes)), 0) FROM message", [], |row| row.get(0))?;
        Ok(Self { most, inner: Mutex::new(Inner { database, held: held.unsigned_abs() }) })
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
        let mut inner = self.lock();
        let Inner { database, held } = &mut *inner;
        let transaction = database.transaction()?;
        transaction
            .prepare_cached("INSERT INTO message (signal, bytes) VALUES (?1, ?2)")?
            .execute(params![signal.number(), bytes])?;
        let (mut now, mut dropped) = (*held + bytes.len() as u64, 0);
        while now > self.most {
            let oldest: Option<(i64, i64)> = transaction
                .prepare_cached("SELECT number, length(bytes) FROM message ORDER BY number LIMIT 1")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((oldest, length)) = oldest else { break };
            transaction.prepare_cached("DELETE FROM message WHERE number = ?1")?.execute([oldest])?;
            dropped += length.unsigned_abs();
            now = now.saturating_sub(length.unsigned_abs());
        }
        transaction.commit()?;
        *held = now;
        Ok(dropped)
    }

    /// The oldest message of a signal.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn first(&self, signal: Signal) -> rusqlite::Result<Option<Message>> {
        self.lock()
            .database
            .prepare_cached("SELECT number, bytes FROM message WHERE signal = ?1 ORDER BY number LIMIT 1")?
            .query_row([signal.number()], |row| Ok(Message { number: row.get(0)?, signal, bytes: row.get(1)? }))
            .optional()
    }

    /// The collector has this one, or will never take it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&self, message: &Message) -> rusqlite::Result<()> {
        let mut inner = self.lock();
        let Inner { database, held } = &mut *inner;
        // It may have gone already, because the outbox was full.
        if database.prepare_cached("DELETE FROM message WHERE number = ?1")?.execute([message.number])? > 0 {
            *held = held.saturating_sub(message.bytes.len() as u64);
        }
        if *held == 0 {
            database.execute_batch("PRAGMA incremental_vacuum(64)")?;
        }
        Ok(())
    }

    /// Bytes that wait.
    pub(super) fn held(&self) -> u64 {
        self.lock().held
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // SQLite rolls back what another holder did not finish, and the sum is written after the commit.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let first = outbox.first(Signal::Metrics).unwrap().unwrap();
        assert_eq!((first.signal, first.bytes.as_slice()), (Signal::Metrics, b"one".as_slice()));
        outbox.remove(&first).unwrap();
        let second = outbox.first(Signal::Traces).unwrap().unwrap();
        assert_eq!((second.signal, second.bytes.as_slice()), (Signal::Traces, b"two".as_slice()));
        outbox.remove(&second).unwrap();
        outbox.remove(&second).unwrap();
        assert_eq!((outbox.first(Signal::Traces).unwrap(), outbox.held()), (None, 0));
    }

    #[test]
    fn the_oldest_goes_when_it_is_full_and_is_counted() {
        let outbox = Outbox::open(None, 100).unwrap();
        for _ in 0..4 {
            assert_eq!(outbox.push(Signal::Metrics, &[7; 25]).unwrap(), 0);
        }
        assert_eq!(outbox.push(Signal::Metrics, &[8; 30]).unwrap(), 50);
        assert_eq!((outbox.held(), outbox.first(Signal::Metrics).unwrap().unwrap().number), (80, 3));
        // One that does not fit at all is not taken.
        assert_eq!(outbox.push(Signal::Metrics, &[9; 200]).unwrap(), 200);
        assert_eq!((outbox.held(), outbox.first(Signal::Metrics).unwrap().unwrap().number), (80, 3));
    }

    #[test]
    fn a_damaged_one_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "no database, and long enough to be taken for one".repeat(50)).unwrap();
        let outbox = Outbox::open(Some(dir.path()), 100).unwrap();
        outbox.push(Signal::Metrics, b"one").unwrap();
        assert!(outbox.first(Signal::Metrics).unwrap().is_some());
    }
}
