//! The database file: made, opened, examined, and put aside where it is damaged.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use uuid::Uuid;

use super::{HistoryError, Open, SCHEMA};

const FILE: &str = "history.db";
/// A damaged file's name, without the number between both parts.
const DAMAGED: (&str, &str) = ("history.damaged-", ".db");
/// Damaged files that are kept: those with the highest numbers.
const KEPT: usize = 3;
/// The ends of the names of a database's files.
const ENDS: [&str; 3] = ["", "-wal", "-shm"];
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
    let aside = put_aside(folder);
    Ok((open_file(&folder.join(FILE))?, Some(aside)))
}

fn open_file(path: &Path) -> Result<Open, HistoryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = prepare(Connection::open_with_flags(path, flags)?)?;
    let file = identity_of(path).map_err(HistoryError::File)?;
    // Without it, nobody would notice that the file is removed.
    let file = file.ok_or_else(|| HistoryError::File(ErrorKind::NotFound.into()))?;
    Ok(Open { file: Some(file), ..opened })
}

/// Device and inode of the file in this folder; none where there is none.
///
/// # Errors
/// The system does not say whether there is one.
pub(super) fn identity(folder: &Path) -> io::Result<Option<(u64, u64)>> {
    identity_of(&folder.join(FILE))
}

fn identity_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match path.metadata() {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        // A file in the place of a folder above it hides it just as well.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds the records of one database that another one does not hold yet, in their order; all of them or none.
///
/// A record keeps the store and the number with which it was first written. Records are always copied in order and without
/// gaps, so that a database that holds a record of a store was given those before it, too.
pub(super) fn copy(from: &Open, to: &mut Open) -> Result<(), HistoryError> {
    let own = to.store.to_string();
    let mut last = last_number(&to.database)?;
    let mut held = held(&to.database)?;
    held.insert(own.clone(), last);
    let transaction = to.database.transaction()?;
    let mut statement = from.database.prepare(
        "SELECT kind, ends, packed, coalesce(origin, ?1), coalesce(number, sequence) FROM record ORDER BY sequence",
    )?;
    let mut rows = statement.query([from.store.to_string()])?;
    while let Some(row) = rows.next()? {
        let (origin, number): (String, i64) = (row.get(3)?, row.get(4)?);
        if held.get(&origin).is_some_and(|upto| number <= *upto) {
            continue;
        }
        let (kind, ends, packed): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let next = last.saturating_add(1);
        // An older copy of a file gets its own records back with the numbers that they had.
        let (sequence, origin, number) =
            if origin == own { (number.max(next), None, None) } else { (next, Some(origin), Some(number)) };
        transaction
            .prepare_cached(
                "INSERT INTO record (sequence, kind, ends, packed, origin, number) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![sequence, kind, ends, packed, origin, number])?;
        last = sequence;
    }
    transaction.commit()?;
    Ok(())
}

/// The highest number that a record ever had here; 0 where there was none.
fn last_number(database: &Connection) -> rusqlite::Result<i64> {
    database.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'record'", [], |row| row.get(0))
}

/// Up to which number the records of other stores are here, by those stores.
fn held(database: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut statement =
        database.prepare("SELECT origin, max(number) FROM record WHERE origin IS NOT NULL GROUP BY origin")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
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
                 recorded INTEGER,
                 origin TEXT,
                 number INTEGER);
             CREATE INDEX record_recorded ON record (kind, recorded);
             PRAGMA user_version = {SCHEMA};
             COMMIT;",
            Uuid::now_v7()
        ))?,
        SCHEMA => add_columns(&database)?,
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

/// Adds the columns that older versions did not have. They go on with a table that has them, and leave them empty: records
/// whose place is not known get it when old ones are put together, and records without an origin are of this store.
fn add_columns(database: &Connection) -> Result<(), HistoryError> {
    let lacks = |column: &str| -> rusqlite::Result<bool> {
        database.query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM pragma_table_info('record') WHERE name = ?1)",
            [column],
            |row| row.get(0),
        )
    };
    if lacks("recorded")? {
        database.execute_batch(
            "BEGIN;
             ALTER TABLE record ADD COLUMN recorded INTEGER;
             DROP INDEX IF EXISTS record_ends;
             CREATE INDEX record_recorded ON record (kind, recorded);
             COMMIT;",
        )?;
    }
    if lacks("origin")? {
        database.execute_batch(
            "BEGIN;
             ALTER TABLE record ADD COLUMN origin TEXT;
             ALTER TABLE record ADD COLUMN number INTEGER;
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

/// Moves the file and its log to a name that no other one has, and removes the oldest of those that were put aside.
fn put_aside(folder: &Path) -> PathBuf {
    let number = damaged(folder).last().map_or(1, |last| last.saturating_add(1));
    let aside = numbered(folder, number);
    for end in ENDS {
        // One that is not there need not be moved; one that cannot be moved fails the next opening.
        let _ = std::fs::rename(with_end(&folder.join(FILE), end), with_end(&aside, end));
    }
    let kept = damaged(folder);
    for number in kept.iter().take(kept.len().saturating_sub(KEPT)) {
        for end in ENDS {
            // One that cannot be removed now is removed when the next one is put aside.
            let _ = std::fs::remove_file(with_end(&numbered(folder, *number), end));
        }
    }
    aside
}

/// The numbers of the files that were put aside, the oldest first. Older versions took the seconds since 1970: counting goes on
/// from there, whatever the clock says.
fn damaged(folder: &Path) -> Vec<u64> {
    let number_of = |name: &str| name.strip_prefix(DAMAGED.0)?.strip_suffix(DAMAGED.1)?.parse::<u64>().ok();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number_of(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

fn numbered(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{}{number}{}", DAMAGED.0, DAMAGED.1))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
