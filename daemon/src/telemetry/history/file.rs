//! The database file: made, opened, examined, and put aside where it is damaged.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::{History, HistoryError, Limits, SCHEMA};

const FILE: &str = "history.db";
/// How long another connection may hold the database.
const BUSY: Duration = Duration::from_secs(5);

/// A history that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The history.
    pub history: History,
    /// Where the one that was damaged is now.
    pub damaged: Option<PathBuf>,
}

pub(super) fn open(folder: Option<&Path>, limits: Limits) -> Result<Opened, HistoryError> {
    let Some(folder) = folder else {
        return Ok(Opened { history: prepare(Connection::open_in_memory()?, limits)?, damaged: None });
    };
    std::fs::create_dir_all(folder).map_err(HistoryError::Folder)?;
    let path = folder.join(FILE);
    match open_file(&path, limits) {
        Err(HistoryError::Database(error)) if is_damage(&error) => {
            let aside = put_aside(&path);
            Ok(Opened { history: open_file(&path, limits)?, damaged: Some(aside) })
        }
        opened => Ok(Opened { history: opened?, damaged: None }),
    }
}

fn open_file(path: &Path, limits: Limits) -> Result<History, HistoryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepare(Connection::open_with_flags(path, flags)?, limits)
}

/// Makes what is not there, and looks whether what is there is whole where the daemon did not end in order.
fn prepare(database: Connection, limits: Limits) -> Result<History, HistoryError> {
    database.busy_timeout(BUSY)?;
    // One daemon alone: another one with the same folder is refused, and there is no shared memory to map.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    // Pages after which the log is written back, and bytes that it keeps afterwards.
    database.pragma_update(None, "wal_autocheckpoint", 256)?;
    database.pragma_update(None, "journal_size_limit", 1 << 20)?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => database.execute_batch(&format!(
            "BEGIN;
             CREATE TABLE meta (store TEXT NOT NULL, clean INTEGER NOT NULL);
             INSERT INTO meta VALUES ('{}', 1);
             CREATE TABLE record (
                 sequence INTEGER PRIMARY KEY AUTOINCREMENT,
                 first INTEGER,
                 kind INTEGER NOT NULL,
                 ends INTEGER NOT NULL,
                 packed BLOB NOT NULL);
             CREATE INDEX record_ends ON record (kind, ends);
             PRAGMA user_version = {SCHEMA};
             COMMIT;",
            Uuid::now_v7()
        ))?,
        SCHEMA => {}
        found => return Err(HistoryError::Newer { found, known: SCHEMA }),
    }
    let (store, clean): (String, bool) =
        database.query_row("SELECT store, clean FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !clean {
        examine(&database)?;
    }
    database.execute("UPDATE meta SET clean = 0", [])?;
    let store = store.parse().map_err(|_| damage())?;
    Ok(History { store, limits, database: Mutex::new(database) })
}

fn examine(database: &Connection) -> Result<(), HistoryError> {
    let found: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(damage().into()) }
}

pub(super) fn mark_clean(database: &Connection) -> Result<(), HistoryError> {
    database.execute("UPDATE meta SET clean = 1", [])?;
    Ok(())
}

fn damage() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves the file and its log to another name.
fn put_aside(path: &Path) -> PathBuf {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = path.with_extension(format!("damaged-{at}.db"));
    for end in ["", "-wal", "-shm"] {
        let named = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        // One that is not there need not be moved; one that cannot be moved fails the next opening.
        let _ = std::fs::rename(named(path), named(&aside));
    }
    aside
}
