//! The file: its tables, and whether this program may read and write it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::exit::Failure;

/// The version of the tables below. Raised when an older program could not understand them; then older files are changed here.
const VERSION: i64 = 1;
/// Says whose file it is: "RcTl".
const APPLICATION: i64 = 0x5263_546c;
/// How long another run may hold the file.
const BUSY: Duration = Duration::from_secs(60);
/// How often, and with which pause, it is tried to change how the file is written while another run opens it, too.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// What any tool of SQLite's shows of the file.
const TABLES: &str = include_str!("schema.sql");

/// Opens the file, and makes it where there is none.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::Failed(format!("cannot make the folder {}: {error}", folder.display())))?;
    }
    let failed = |error: rusqlite::Error| failure(path, &error);
    let mut db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(BUSY).map_err(failed)?;
    check(path, &db)?;
    with_log(&db).map_err(failed)?;
    // With the log that comes before the file, a power cut loses the last records with their cursor, and never one alone.
    db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    db.set_prepared_statement_cache_capacity(64);
    let making = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another run may have been faster.
    if version(&making).map_err(failed)? == 0 {
        making.execute_batch(TABLES).map_err(failed)?;
        making.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
        making.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    making.commit().map_err(failed)?;
    check(path, &db)?;
    Ok(db)
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Readers do not wait for a writer. While another run opens the file, the switch is refused at once, whatever the patience.
fn with_log(db: &Connection) -> rusqlite::Result<()> {
    for _ in 0..TRIES {
        match db.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    db.pragma_update(None, "journal_mode", "WAL")
}

/// The file is empty, or one of ours that this program understands.
fn check(path: &Path, db: &Connection) -> Result<(), Failure> {
    let failed = |error: rusqlite::Error| failure(path, &error);
    // In one statement, since another run may be making the tables.
    let (version, application, tables): (i64, i64, i64) = db
        .query_row(
            "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id), \
             (SELECT count(*) FROM sqlite_master)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(failed)?;
    match (application, version) {
        (APPLICATION, 1..=VERSION) => Ok(()),
        (APPLICATION, _) => Err(Failure::Failed(format!(
            "{} is a telemetry store of version {version}; this agent-cli knows versions up to {VERSION}: use a newer agent-cli, \
             or name another file with --store",
            path.display()
        ))),
        (0, 0) if tables == 0 => Ok(()),
        _ => Err(Failure::Usage(format!(
            "{} is a database, but no telemetry store: name another file with --store",
            path.display()
        ))),
    }
}

/// What went wrong with the file.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> Failure {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Failure::Damaged(format!(
            "{path} is damaged or no telemetry store ({error}): name another file with --store, or remove this one and gather again"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Failure::Busy(format!(
            "another program has held the telemetry store {path} for {} s: try again when it has ended",
            BUSY.as_secs()
        )),
        _ => Failure::Failed(format!("the telemetry store {path}: {error}")),
    }
}
