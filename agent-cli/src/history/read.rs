//! What was gathered is read.

use std::collections::BTreeMap;

use recurve_proto::v1::Histogram;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, ToSql, params};

use super::Store;
use crate::exit::Failure;

/// A series' attributes.
pub(crate) type Attributes = BTreeMap<String, String>;

/// A history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// In this file.
    pub(crate) id: i64,
    /// Of the device.
    pub(crate) name: String,
    /// What identifies it.
    pub(crate) store: String,
}

/// When something was measured: nanoseconds since 1970, and seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct When {
    pub(crate) begin: i64,
    pub(crate) ended: i64,
    pub(crate) seconds: f64,
}

/// A gauge, or what a counter grew by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Value {
    pub(crate) last: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) mean: Option<f64>,
    pub(crate) delta: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) device: String,
    pub(crate) at: i64,
    pub(crate) kind: String,
    pub(crate) severity: String,
    pub(crate) message: String,
}

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All.
    All,
    /// Warnings and errors, and changes of the model.
    Notable,
}

impl Store {
    /// All histories, by name.
    pub(crate) fn histories(&self) -> Result<Vec<Kept>, Failure> {
        self.done(self.rows("SELECT id, name, store FROM device ORDER BY name, id", &[], |row| {
            Ok(Kept { id: row.get(0)?, name: row.get(1)?, store: row.get(2)? })
        }))
    }

    /// The upper bounds of a histogram's buckets.
    pub(crate) fn bounds(&self, metric: &str) -> Result<Vec<f64>, Failure> {
        let found =
            self.db.query_row("SELECT bounds FROM metric WHERE name = ?", [metric], |row| parsed::<Vec<f64>>(row, 0));
        Ok(self.done(found.optional())?.unwrap_or_default())
    }

    /// When the samples of a history that ended after `since` were taken, in order.
    pub(crate) fn times(&self, history: i64, since: i64) -> Result<Vec<When>, Failure> {
        let sql = "SELECT begin, ended, seconds FROM sample WHERE device = ? AND ended > ? ORDER BY ended";
        self.done(self.rows(sql, &[&history, &since], |row| when(row, 0)))
    }

    /// Every value of a metric in a history that ended after `since`, series by series.
    pub(crate) fn values(
        &self,
        history: i64,
        metric: &str,
        since: i64,
        mut each: impl FnMut(&Attributes, When, Value),
    ) -> Result<(), Failure> {
        let columns = "value.last, value.min, value.max, value.mean, value.delta";
        self.each(("value", columns), history, metric, since, |attributes, when, row| {
            let value =
                Value { last: row.get(3)?, min: row.get(4)?, max: row.get(5)?, mean: row.get(6)?, delta: row.get(7)? };
            each(attributes, when, value);
            Ok(())
        })
    }

    /// The same of a histogram.
    pub(crate) fn histograms(
        &self,
        history: i64,
        metric: &str,
        since: i64,
        mut each: impl FnMut(&Attributes, When, &Histogram),
    ) -> Result<(), Failure> {
        let columns = "histogram_value.counts, histogram_value.sum";
        self.each(("histogram_value", columns), history, metric, since, |attributes, when, row| {
            each(attributes, when, &Histogram { counts: parsed(row, 3)?, sum: row.get(4)? });
            Ok(())
        })
    }

    /// Rows of one metric, from the first sample that counts on.
    fn each(
        &self,
        (table, columns): (&str, &str),
        history: i64,
        metric: &str,
        since: i64,
        mut each: impl FnMut(&Attributes, When, &Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let mut all = || {
            let lowest: Option<i64> = self
                .db
                .prepare_cached("SELECT min(id) FROM sample WHERE device = ? AND ended > ?")?
                .query_row([history, since], |row| row.get(0))?;
            let Some(lowest) = lowest else { return Ok(()) };
            let series = self.rows(
                "SELECT series.id, attributes FROM series JOIN metric ON metric.id = series.metric \
                 WHERE device = ? AND metric.name = ? ORDER BY attributes",
                &[&history, &metric],
                |row| Ok((row.get::<_, i64>(0)?, parsed::<Attributes>(row, 1)?)),
            )?;
            let mut query = self.db.prepare_cached(&format!(
                "SELECT sample.begin, sample.ended, sample.seconds, {columns} FROM {table} \
                 JOIN sample ON sample.id = {table}.sample \
                 WHERE {table}.series = ? AND {table}.sample >= ? AND sample.ended > ? ORDER BY {table}.sample"
            ))?;
            for (id, attributes) in series {
                let mut rows = query.query(params![id, lowest, since])?;
                while let Some(row) = rows.next()? {
                    each(&attributes, when(row, 0)?, row)?;
                }
            }
            Ok(())
        };
        self.done(all())
    }

    /// The newest events of these histories, the newest first.
    pub(crate) fn events(
        &self,
        histories: &[i64],
        since: i64,
        which: Which,
        most: usize,
    ) -> Result<Vec<Happened>, Failure> {
        let notable = match which {
            Which::All => "",
            Which::Notable => {
                "AND (severity IN ('warning', 'error') OR kind IN ('model.activated', 'model.confirmed'))"
            }
        };
        let sql = format!(
            "SELECT name, at, kind, severity, message FROM event JOIN device ON device.id = event.device \
             WHERE device = ? AND at > ? {notable} ORDER BY at DESC, sequence DESC LIMIT ?"
        );
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let mut events = Vec::new();
        for history in histories {
            let found = self.rows(&sql, &[history, &since, &limit], |row| {
                Ok(Happened {
                    device: row.get(0)?,
                    at: row.get(1)?,
                    kind: row.get(2)?,
                    severity: row.get(3)?,
                    message: row.get(4)?,
                })
            });
            events.extend(self.done(found)?);
        }
        events.sort_by_key(|event: &Happened| std::cmp::Reverse(event.at));
        events.truncate(most);
        Ok(events)
    }

    /// How many events of each severity there were.
    pub(crate) fn severities(&self, history: i64, since: i64) -> Result<BTreeMap<String, u64>, Failure> {
        let sql = "SELECT severity, count(*) FROM event WHERE device = ? AND at > ? GROUP BY severity";
        let counted = self.rows(sql, &[&history, &since], |row| {
            Ok((row.get::<_, String>(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
        });
        Ok(self.done(counted)?.into_iter().collect())
    }

    /// All rows of a query that has few.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.db.prepare_cached(sql)?.query_map(values, read)?.collect()
    }

    /// Every value after `since` as text that any program reads: name, time, seconds, metric, unit, attributes, value, min, max,
    /// mean, count, sum, counts.
    pub(crate) fn raw(
        &self,
        history: i64,
        since: i64,
        mut each: impl FnMut(&[String]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let queries = [
            ("value", "coalesce(last, delta), min, max, mean, NULL, NULL, NULL"),
            ("histogram_value", "NULL, NULL, NULL, NULL, count, sum, counts"),
        ];
        for (table, columns) in queries {
            let sql = format!(
                "SELECT device.name, strftime('%Y-%m-%dT%H:%M:%fZ', ended / 1e9, 'unixepoch'), seconds, metric.name, unit, \
                 attributes, {columns} FROM series JOIN metric ON metric.id = series.metric \
                 JOIN device ON device.id = series.device JOIN {table} ON {table}.series = series.id \
                 JOIN sample ON sample.id = {table}.sample \
                 WHERE series.device = ? AND ended > ? ORDER BY series.id, sample.id"
            );
            let mut query = self.done(self.db.prepare(&sql))?;
            let mut rows = self.done(query.query([history, since]))?;
            while let Some(row) = self.done(rows.next())? {
                let texts = (0..13).map(|column| text(row, column)).collect::<rusqlite::Result<Vec<String>>>();
                each(&self.done(texts)?)?;
            }
        }
        Ok(())
    }
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(column)? {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    })
}

pub(super) fn when(row: &Row<'_>, from: usize) -> rusqlite::Result<When> {
    Ok(When { begin: row.get(from)?, ended: row.get(from + 1)?, seconds: row.get(from + 2)? })
}

/// A column of JSON.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
