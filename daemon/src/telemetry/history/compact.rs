//! What is old becomes smaller and goes.
//!
//! A record's age is the time that the device recorded after it: the lengths of the samples that follow, which a clock measured
//! that nobody sets. The wall clock of a gateway may be wrong by years for one start, and must not cost a record.

use recurve_proto::v1::Sample;
use recurve_proto::v1::telemetry_record::Content;
use recurve_telemetry::{packed, rollup};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{HOUR, HistoryError, MINUTE, length_of};

const HOUR_MS: i64 = 60 * 60 * 1000;
/// Bytes of the write-ahead log, which count too.
const LOG: u64 = 2 << 20;
/// Records that are placed at once.
const PLACED: i64 = 512;

/// Removes the oldest records until the database has at most so many bytes.
pub(super) fn keep_within(database: &Connection, bytes: u64) -> Result<(), HistoryError> {
    let most = bytes.saturating_sub(LOG).max(bytes / 2);
    let number = |pragma: &str| database.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let size = number("page_size")?;
    while (number("page_count")? - number("freelist_count")?).saturating_mul(size).unsigned_abs() > most {
        let removed = database.execute(
            "DELETE FROM record WHERE sequence IN (SELECT sequence FROM record ORDER BY sequence
             LIMIT 1 + (SELECT count(*) FROM record) / 64)",
            [],
        )?;
        if removed == 0 {
            break;
        }
    }
    // The file becomes smaller where a larger bound was set before.
    if number("page_count")?.saturating_mul(size).unsigned_abs() > most {
        database.execute_batch("PRAGMA incremental_vacuum(256)")?;
    }
    Ok(())
}

/// Places records that an older version wrote in the recorded time; whether there may be more of them.
pub(super) fn place(database: &mut Connection) -> Result<bool, HistoryError> {
    let transaction = database.transaction()?;
    let placed = {
        let mut statement = transaction.prepare_cached(
            "SELECT sequence, packed FROM record WHERE kind IN (1, 2, 3) AND recorded IS NULL ORDER BY sequence LIMIT ?1",
        )?;
        let rows = statement.query_map([PLACED], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(i64, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
        let Some((first, _)) = rows.first() else { return Ok(false) };
        let before: Option<Option<i64>> = transaction
            .prepare_cached("SELECT recorded FROM record WHERE sequence < ?1 ORDER BY sequence DESC LIMIT 1")?
            .query_row([first], |row| row.get(0))
            .optional()?;
        let mut recorded = before.flatten().unwrap_or(0);
        for (sequence, packed) in &rows {
            // One that cannot be read stands for no time.
            recorded += packed::unpack(packed).as_ref().map_or(0, length_of);
            transaction
                .prepare_cached("UPDATE record SET recorded = ?2 WHERE sequence = ?1")?
                .execute([*sequence, recorded])?;
        }
        rows.len()
    };
    transaction.commit()?;
    Ok(i64::try_from(placed).is_ok_and(|placed| placed == PLACED))
}

/// The time that the device has recorded in all, in milliseconds; none where there is no record.
pub(super) fn recorded(database: &Connection) -> Result<Option<i64>, HistoryError> {
    let newest = database
        .prepare_cached("SELECT recorded FROM record ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(newest.flatten())
}

/// Removes records that ended before this much time was recorded.
pub(super) fn remove_before(database: &Connection, recorded: i64) -> Result<(), HistoryError> {
    database.prepare_cached("DELETE FROM record WHERE kind IN (1, 2, 3) AND recorded < ?1")?.execute([recorded])?;
    Ok(())
}

/// Puts the minutes of an hour, all of which ended before this much time was recorded, together to one record; whether there
/// was one. Only minutes that follow one another: where the clock was set back, others of the same hour may stand behind
/// those of the next. And only minutes that were first written to the same store: an hour of two stores could not be told from
/// the minutes that either holds.
pub(super) fn merge_an_hour(database: &mut Connection, recorded: i64) -> Result<bool, HistoryError> {
    let transaction = database.transaction()?;
    let oldest: Option<i64> = transaction
        .prepare_cached("SELECT min(sequence) FROM record WHERE kind = ?1 AND recorded <= ?2")?
        .query_row([MINUTE, recorded], |row| row.get(0))?;
    let Some(oldest) = oldest else { return Ok(false) };
    let minutes = minutes_of_an_hour(&transaction, oldest)?;
    if minutes.last().is_none_or(|last| last.recorded > recorded) {
        return Ok(false);
    }
    let samples: Vec<Sample> = minutes
        .iter()
        .filter_map(|minute| match packed::unpack(&minute.packed) {
            Ok(Content::Sample(sample)) => Some(sample),
            Ok(Content::Event(_)) | Err(_) => None,
        })
        .collect();
    for minute in &minutes {
        transaction.prepare_cached("DELETE FROM record WHERE sequence = ?1")?.execute([minute.sequence])?;
    }
    if let (Some(merged), Some(first), Some(last)) = (rollup::merge(&samples), minutes.first(), minutes.last()) {
        let packed = packed::pack(&Content::Sample(merged))?;
        transaction
            .prepare_cached(
                "INSERT INTO record (sequence, first, kind, ends, recorded, packed, origin, number)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                last.sequence,
                first.sequence,
                HOUR,
                last.ends,
                last.recorded,
                packed,
                last.origin,
                last.number
            ])?;
    }
    transaction.commit()?;
    Ok(true)
}

struct Minute {
    sequence: i64,
    ends: i64,
    recorded: i64,
    packed: Vec<u8>,
    /// The store that it was first written to, and its number there; none where that is this one.
    origin: Option<String>,
    number: Option<i64>,
}

/// The minute with this number and those after it that end in the same hour and are of the same store, up to the first sample
/// that does not or is not.
fn minutes_of_an_hour(database: &Connection, first: i64) -> Result<Vec<Minute>, HistoryError> {
    // A minute that ends with the hour belongs to it.
    let hour = |ends: i64| (ends - 1).div_euclid(HOUR_MS);
    let mut statement = database.prepare_cached(
        "SELECT kind, sequence, ends, recorded, packed, origin, number FROM record
         WHERE +kind IN (?1, ?2) AND sequence >= ?3 ORDER BY sequence",
    )?;
    let mut rows = statement.query([MINUTE, HOUR, first])?;
    let mut minutes: Vec<Minute> = Vec::new();
    while let Some(row) = rows.next()? {
        let minute = Minute {
            sequence: row.get(1)?,
            ends: row.get(2)?,
            recorded: row.get(3)?,
            packed: row.get(4)?,
            origin: row.get(5)?,
            number: row.get(6)?,
        };
        let same = |first: &Minute| hour(first.ends) == hour(minute.ends) && first.origin == minute.origin;
        let same = minutes.first().is_none_or(same);
        if row.get::<_, i64>(0)? != MINUTE || !same {
            break;
        }
        minutes.push(minute);
    }
    Ok(minutes)
}
