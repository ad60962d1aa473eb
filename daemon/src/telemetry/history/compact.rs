//! What is old becomes smaller and goes.

use recurve_proto::v1::Sample;
use recurve_proto::v1::telemetry_record::Content;
use recurve_telemetry::{packed, rollup};
use rusqlite::{Connection, params};

use super::{HOUR, HistoryError, MINUTE};

const HOUR_MS: i64 = 60 * 60 * 1000;
/// Bytes of the write-ahead log, which count too.
const LOG: u64 = 2 << 20;

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

/// Removes what ended before this time.
pub(super) fn remove_before(database: &Connection, time: i64) -> Result<(), HistoryError> {
    database.prepare_cached("DELETE FROM record WHERE ends < ?1")?.execute([time])?;
    Ok(())
}

/// Puts the minutes of an hour that ended before this time together to one record; whether there was one. Only minutes that
/// follow one another: where the clock was set back, others of the same hour may stand behind those of the next.
pub(super) fn merge_an_hour(database: &mut Connection, time: i64) -> Result<bool, HistoryError> {
    let transaction = database.transaction()?;
    // An hour that is not over yet may be the one that this time is in.
    let before = time.div_euclid(HOUR_MS) * HOUR_MS;
    let oldest: Option<i64> = transaction
        .prepare_cached("SELECT min(sequence) FROM record WHERE kind = ?1 AND ends <= ?2")?
        .query_row([MINUTE, before], |row| row.get(0))?;
    let Some(oldest) = oldest else { return Ok(false) };
    let minutes = minutes_of_an_hour(&transaction, oldest)?;
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
            .prepare_cached("INSERT INTO record (sequence, first, kind, ends, packed) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![last.sequence, first.sequence, HOUR, last.ends, packed])?;
    }
    transaction.commit()?;
    Ok(true)
}

struct Minute {
    sequence: i64,
    ends: i64,
    packed: Vec<u8>,
}

/// The minute with this number and those after it that end in the same hour, up to the first sample that does not.
fn minutes_of_an_hour(database: &Connection, first: i64) -> Result<Vec<Minute>, HistoryError> {
    // A minute that ends with the hour belongs to it.
    let hour = |ends: i64| (ends - 1).div_euclid(HOUR_MS);
    let mut statement = database.prepare_cached(
        "SELECT kind, sequence, ends, packed FROM record WHERE +kind IN (?1, ?2) AND sequence >= ?3 ORDER BY sequence",
    )?;
    let mut rows = statement.query([MINUTE, HOUR, first])?;
    let mut minutes: Vec<Minute> = Vec::new();
    while let Some(row) = rows.next()? {
        let minute = Minute { sequence: row.get(1)?, ends: row.get(2)?, packed: row.get(3)? };
        let same = minutes.first().is_none_or(|first| hour(first.ends) == hour(minute.ends));
        if row.get::<_, i64>(0)? != MINUTE || !same {
            break;
        }
        minutes.push(minute);
    }
    Ok(minutes)
}
