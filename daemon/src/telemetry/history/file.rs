//! The database file: made, opened, examined, and put aside where it is damaged.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::{HistoryError, Open, SCHEMA};

const FILE: &str = "history.db";
/// How long another connection may hold the database.
const BUSY: Duration = Duration::from_millis(500);

/// Opens the history of this folder, or one in memory; gives also where a damaged one was put.
pub(super) fn open(folder: Option<&Path>) -> Result<(Open, Option<PathBuf>), HistoryError> {
    let Some(folder) = folder else { return Ok((prepare(Connection::open_in_memory()?)?, None)) };
    std::fs::create_dir_all(folder).map_err(HistoryError::Folder)?;
    match open_file(&folder.join(FILE)) {
        Err(HistoryError::Database(error)) if is_damage(&error) => begin_anew(folder),
        opened => Ok((opened?, None)),
    }
}

/// Puts the file aside and begins a new one.
pub(super) fn begin_anew(folder: &Path) -> Result<(Open, Option<PathBuf>), HistoryError> {
    let path = folder.join(FILE);
    let aside = put_aside(&path);
    Ok((open_file(&path)?, Some(aside)))
}

fn open_file(path: &Path) -> Result<Open, HistoryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = prepare(Connection::open_with_flags(path, flags)?)?;
    Ok(Open { file: identity_of(path), ..opened })
}

/// Device and inode of the file in this folder; none where there is none.
pub(super) fn identity(folder: &Path) -> Option<(u64, u64)> {
    identity_of(&folder.join(FILE))
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Adds the records of one database to another one, in their order; all of them or none.
pub(super) fn copy(from: &Connection, to: &mut Connection) -> Result<(), HistoryError> {
    let transaction = to.transaction()?;
    let mut statement = from.prepare("SELECT kind, ends, packed FROM record ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, ends, packed): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        transaction
            .prepare_cached("INSERT INTO record (kind, ends, packed) VALUES (?1, ?2, ?3)")?
            .execute(rusqlite::params![kind, ends, packed])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Makes what is not there, and looks whether what is there is whole where the daemon did not end in order.
fn prepare(database: Connection) -> Result<Open, HistoryError> {
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
                 packed BLOB NOT NULL,
                 recorded INTEGER);
             CREATE INDEX record_recorded ON record (kind, recorded);
             PRAGMA user_version = {SCHEMA};
             COMMIT;",
            Uuid::now_v7()
        ))?,
        SCHEMA => add_recorded(&database)?,
        found => return Err(HistoryError::Newer { found, known: SCHEMA }),
    }
    let (store, clean): (String, bool) =
        database.query_row("SELECT store, clean FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !clean {
        examine(&database)?;
    }
    database.execute("UPDATE meta SET clean = 0", [])?;
    let store = store.parse().map_err(|_| damage())?;
    Ok(Open { store, database, homeless: false, failed: false, refused: false, file: None })
}

/// Adds the column that older versions did not have. They go on with a table that has it, and leave it empty: records whose
/// place is not known get it when old ones are put together.
fn add_recorded(database: &Connection) -> Result<(), HistoryError> {
    let there: bool = database.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('record') WHERE name = 'recorded')",
        [],
        |row| row.get(0),
    )?;
    if !there {
        database.execute_batch(
            "BEGIN;
             ALTER TABLE record ADD COLUMN recorded INTEGER;
             DROP INDEX IF EXISTS record_ends;
             CREATE INDEX record_recorded ON record (kind, recorded);
             COMMIT;",
        )?;
    }
    Ok(())
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

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves the file and its log to another name.
fn put_aside(path: &Path) -> PathBuf {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = path.with_extension(format!("damaged-{at}.db"));
    for end in ["", "-wal", "-shm"] {
        let named = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        // One that is not there need not be moved; one that cannot be moved fails the next opening.
        let _ = std::fs::rename(named(path), named(&aside));
    }
    aside
}
