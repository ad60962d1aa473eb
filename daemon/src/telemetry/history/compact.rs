//! What is old becomes smaller and goes.

use recurve_proto::v1::Sample;
use recurve_proto::v1::telemetry_record::Content;
use recurve_telemetry::{packed, rollup};
use rusqlite::{Connection, OptionalExtension as _, params};

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

/// Puts the minutes of the oldest hour that ended before this time together to one record; whether there was one.
pub(super) fn merge_an_hour(database: &mut Connection, time: i64) -> Result<bool, HistoryError> {
    let transaction = database.transaction()?;
    let oldest: Option<i64> = transaction
        .prepare_cached("SELECT ends FROM record WHERE kind = ?1 AND ends < ?2 ORDER BY ends LIMIT 1")?
        .query_row([MINUTE, time], |row| row.get(0))
        .optional()?;
    let Some(oldest) = oldest else { return Ok(false) };
    // A minute that ends with the hour belongs to it.
    let begin = (oldest - 1).div_euclid(HOUR_MS) * HOUR_MS;
    let end = begin + HOUR_MS;
    if end > time {
        return Ok(false);
    }
    let rows: Vec<(i64, Vec<u8>)> = transaction
        .prepare_cached(
            "SELECT sequence, packed FROM record WHERE kind = ?1 AND ends > ?2 AND ends <= ?3 ORDER BY sequence",
        )?
        .query_map([MINUTE, begin, end], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let numbers: Vec<i64> = rows.iter().map(|(sequence, _)| *sequence).collect();
    let samples: Vec<Sample> = rows
        .iter()
        .filter_map(|(_, packed)| match packed::unpack(packed) {
            Ok(Content::Sample(sample)) => Some(sample),
            Ok(Content::Event(_)) | Err(_) => None,
        })
        .collect();
    for sequence in &numbers {
        transaction.prepare_cached("DELETE FROM record WHERE sequence = ?1")?.execute([sequence])?;
    }
    if let (Some(merged), Some(first), Some(last)) = (rollup::merge(&samples), numbers.first(), numbers.last()) {
        let packed = packed::pack(&Content::Sample(merged))?;
        transaction
            .prepare_cached("INSERT INTO record (sequence, first, kind, ends, packed) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![last, first, HOUR, end, packed])?;
    }
    transaction.commit()?;
    Ok(true)
}
