//! Records are kept: each once, and the cursor with them.

use std::collections::{BTreeMap, HashMap};

use recurve_proto::v1::series::Value;
use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{
    Life, MetricDescription, MetricKind, NodeEvent, Sample, Severity, TelemetryRecord, TelemetryRequest,
    TelemetryResponse,
};
use recurve_telemetry::histogram;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Store, as_nanos, nanos, now, seconds, timestamp};
use crate::exit::Failure;

/// Most ids of series that are remembered.
const REMEMBERED: usize = 100_000;

type Remembered = HashMap<(i64, String, String), i64>;

/// Where gathering begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The history that `after` belongs to; empty where none is known.
    pub(crate) store: String,
    /// The last record that is here.
    pub(crate) after: i64,
    /// Only records that ended after this time.
    pub(crate) since: Option<i64>,
}

impl Start {
    /// The same as a question.
    pub(crate) fn request(&self) -> TelemetryRequest {
        TelemetryRequest {
            store: self.store.clone(),
            after: u64::try_from(self.after).unwrap_or(0),
            since: self.since.map(timestamp),
            ..TelemetryRequest::default()
        }
    }

    /// Whether both get the same records.
    pub(crate) fn same(&self, other: &Self) -> bool {
        (self.after, self.since) == (other.after, other.since)
    }
}

impl Store {
    /// Where to go on with the device of this name: at its newest history here.
    pub(crate) fn start_by_name(&self, name: &str, since: i64) -> Result<Start, Failure> {
        let found = self
            .db
            .query_row(
                "SELECT store FROM device LEFT JOIN cursor ON cursor.device = device.id WHERE name = ? \
                 ORDER BY gathered DESC LIMIT 1",
                [name],
                |row| row.get::<_, String>(0),
            )
            .optional();
        match self.done(found)? {
            Some(store) => self.start(store, since),
            None => Ok(Start { store: String::new(), after: 0, since: Some(since) }),
        }
    }

    /// Where to go on with a history: after the last record that is here, or from the beginning where older ones are wanted
    /// than were asked for before.
    pub(crate) fn start(&self, store: String, since: i64) -> Result<Start, Failure> {
        let found = self
            .db
            .query_row(
                "SELECT sequence, since FROM cursor JOIN device ON device.id = cursor.device WHERE store = ?",
                [&store],
                |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
            )
            .optional();
        Ok(match self.done(found)? {
            // Of a history in which nothing was young enough, there is no last record.
            Some((after, asked)) if asked <= since && after > 0 => Start { store, after, since: None },
            _ => Start { store, after: 0, since: Some(since) },
        })
    }

    /// Keeps what a device says of its history `store`, asked for from `since` on; gives how many records are new.
    pub(crate) fn keep(
        &mut self,
        name: &str,
        store: &str,
        since: i64,
        message: &TelemetryResponse,
    ) -> Result<u64, Failure> {
        let result = kept(&mut self.db, &mut self.series, (name, store, since), message);
        if !matches!(result, Ok(Ok(_))) || self.series.len() > REMEMBERED {
            // What was not committed has no ids.
            self.series.clear();
        }
        self.done(result)?.map_err(|words| Failure::Failed(format!("{name} sends what is no history: {words}")))
    }

    /// A history was gathered to its end: from `since` on nothing is missing.
    pub(crate) fn complete(&mut self, store: &str, since: i64) -> Result<(), Failure> {
        let done = self.db.execute(
            "UPDATE cursor SET since = min(since, ?2), gathered = ?3 \
             WHERE device = (SELECT id FROM device WHERE store = ?1)",
            params![store, since, now()],
        );
        self.done(done).map(drop)
    }
}

/// Records and cursor, or nothing. What the device has no right to say is told in words.
fn kept(
    db: &mut Connection,
    series: &mut Remembered,
    (name, store, since): (&str, &str, i64),
    message: &TelemetryResponse,
) -> rusqlite::Result<Result<u64, String>> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let device = device(&tx, name, store)?;
    for metric in &message.metrics {
        describe(&tx, metric)?;
    }
    let (mut new, mut newest) = (0, 0);
    for record in &message.records {
        let (first, sequence) = match numbers(record) {
            Ok(numbers) => numbers,
            Err(words) => return Ok(Err(words)),
        };
        let is_new = match &record.content {
            Some(Content::Sample(content)) => sample(&tx, series, device, (first, sequence), content)?,
            Some(Content::Event(content)) => event(&tx, device, sequence, content)?,
            // A newer daemon may have records that this program does not know.
            None => false,
        };
        new += u64::from(is_new);
        newest = newest.max(sequence);
    }
    tx.prepare_cached(
        "INSERT INTO cursor (device, sequence, since, gathered) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (device) DO UPDATE SET sequence = max(sequence, excluded.sequence), gathered = excluded.gathered",
    )?
    .execute(params![device, newest, since, now()])?;
    tx.commit()?;
    Ok(Ok(new))
}

/// First and last of the records that one stands for.
fn numbers(record: &TelemetryRecord) -> Result<(i64, i64), String> {
    let first = if record.first == 0 { record.sequence } else { record.first };
    match (i64::try_from(first), i64::try_from(record.sequence)) {
        (Ok(first), Ok(sequence)) if (1..=sequence).contains(&first) => Ok((first, sequence)),
        _ => Err(format!("a record numbered {} that stands for those from {first} on", record.sequence)),
    }
}

/// A history's device, under the name that it has now.
fn device(tx: &Transaction<'_>, name: &str, store: &str) -> rusqlite::Result<i64> {
    tx.prepare_cached(
        "INSERT INTO device (store, name) VALUES (?1, ?2) ON CONFLICT (store) DO UPDATE SET name = excluded.name RETURNING id",
    )?
    .query_row([store, name], |row| row.get(0))
}

fn describe(tx: &Transaction<'_>, metric: &MetricDescription) -> rusqlite::Result<()> {
    let kind = match metric.kind() {
        MetricKind::Counter => "counter",
        MetricKind::Histogram => "histogram",
        MetricKind::Gauge | MetricKind::Unspecified => "gauge",
    };
    tx.prepare_cached(
        "INSERT INTO metric (name, unit, kind, description, bounds) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (name) DO UPDATE SET unit = excluded.unit, kind = excluded.kind, description = excluded.description, \
         bounds = excluded.bounds",
    )?
    .execute(params![metric.name, metric.unit, kind, metric.description, json(&metric.bounds)])
    .map(drop)
}

fn json(value: &impl serde::Serialize) -> String {
    // Lists of numbers and maps of text are always JSON.
    serde_json::to_string(value).unwrap_or_default()
}

fn event(tx: &Transaction<'_>, device: i64, sequence: i64, event: &NodeEvent) -> rusqlite::Result<bool> {
    let severity = match event.severity() {
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Info | Severity::Unspecified => "info",
    };
    let life = Lived::from(event.life.as_ref());
    tx.prepare_cached("INSERT OR IGNORE INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            device,
            sequence,
            event.at.map_or(0, nanos),
            life.boot,
            life.instance,
            life.since_boot,
            event.kind,
            severity,
            event.message,
            json(&event.attributes)
        ])
        .map(|rows| rows > 0)
}

#[derive(Default)]
struct Lived<'a> {
    boot: &'a str,
    instance: &'a str,
    since_boot: f64,
}

impl<'a> From<Option<&'a Life>> for Lived<'a> {
    fn from(life: Option<&'a Life>) -> Self {
        life.map(|life| Self { boot: &life.boot, instance: &life.instance, since_boot: seconds(life.since_boot) })
            .unwrap_or_default()
    }
}

/// A sample, unless it or one that stands for it is here. Those that it stands for leave.
fn sample(
    tx: &Transaction<'_>,
    remembered: &mut Remembered,
    device: i64,
    (first, sequence): (i64, i64),
    sample: &Sample,
) -> rusqlite::Result<bool> {
    // Samples stand for ranges that do not overlap, so that only the next one can stand for this one.
    let next: Option<i64> = tx
        .prepare_cached("SELECT first FROM sample WHERE device = ? AND sequence >= ? ORDER BY sequence LIMIT 1")?
        .query_row([device, sequence], |row| row.get(0))
        .optional()?;
    if next.is_some_and(|next| next <= first) {
        return Ok(false);
    }
    if first < sequence {
        replaced(tx, device, (first, sequence))?;
    }
    let life = Lived::from(sample.life.as_ref());
    let (begin, length) = (sample.begin.map_or(0, nanos), seconds(sample.length).max(0.0));
    tx.prepare_cached(
        "INSERT INTO sample (device, sequence, first, begin, ended, seconds, boot, instance, since_boot) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        device,
        sequence,
        first,
        begin,
        begin.saturating_add(as_nanos(length)),
        length,
        life.boot,
        life.instance,
        life.since_boot
    ])?;
    let id = tx.last_insert_rowid();
    for series in &sample.series {
        let Some(value) = &series.value else { continue };
        let place = place(tx, remembered, device, &series.metric, &series.attributes, value)?;
        keep_value(tx, place, id, value)?;
    }
    Ok(true)
}

/// Takes out the samples of a range, and what was measured in them.
fn replaced(tx: &Transaction<'_>, device: i64, (first, sequence): (i64, i64)) -> rusqlite::Result<()> {
    for table in ["value", "histogram_value"] {
        tx.prepare_cached(&format!(
            "DELETE FROM {table} WHERE series IN (SELECT id FROM series WHERE device = ?1) \
             AND sample IN (SELECT id FROM sample WHERE device = ?1 AND sequence BETWEEN ?2 AND ?3)"
        ))?
        .execute([device, first, sequence])?;
    }
    tx.prepare_cached("DELETE FROM sample WHERE device = ?1 AND sequence BETWEEN ?2 AND ?3")?
        .execute([device, first, sequence])
        .map(drop)
}

fn keep_value(tx: &Transaction<'_>, series: i64, sample: i64, value: &Value) -> rusqlite::Result<()> {
    match value {
        Value::Gauge(gauge) => tx
            .prepare_cached(
                "INSERT OR REPLACE INTO value (series, sample, last, min, max, mean) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                series,
                sample,
                short(gauge.last),
                gauge.min.map(short),
                gauge.max.map(short),
                gauge.mean.map(short)
            ]),
        Value::Counter(delta) => tx
            .prepare_cached("INSERT OR REPLACE INTO value (series, sample, delta) VALUES (?1, ?2, ?3)")?
            .execute(params![series, sample, delta]),
        Value::Histogram(more) => tx
            .prepare_cached("INSERT OR REPLACE INTO histogram_value (series, sample, counts, count, sum) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                series,
                sample,
                json(&more.counts),
                i64::try_from(histogram::count(more)).unwrap_or(i64::MAX),
                more.sum
            ]),
    }
    .map(drop)
}

/// With the digits that it has: 45.3 is not 45.29999923706055.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// The id of a series.
fn place(
    tx: &Transaction<'_>,
    remembered: &mut Remembered,
    device: i64,
    metric: &str,
    attributes: &BTreeMap<String, String>,
    value: &Value,
) -> rusqlite::Result<i64> {
    let key = (device, metric.to_owned(), json(attributes));
    if let Some(id) = remembered.get(&key) {
        return Ok(*id);
    }
    // One that the device did not describe.
    let kind = match value {
        Value::Gauge(_) => "gauge",
        Value::Counter(_) => "counter",
        Value::Histogram(_) => "histogram",
    };
    tx.prepare_cached(
        "INSERT OR IGNORE INTO metric (name, unit, kind, description, bounds) VALUES (?, '', ?, '', '[]')",
    )?
    .execute([metric, kind])?;
    tx.prepare_cached(
        "INSERT OR IGNORE INTO series (device, metric, attributes) \
         SELECT ?1, id, ?3 FROM metric WHERE name = ?2",
    )?
    .execute(params![device, metric, key.2])?;
    let id = tx
        .prepare_cached(
            "SELECT series.id FROM series JOIN metric ON metric.id = series.metric \
             WHERE device = ?1 AND metric.name = ?2 AND attributes = ?3",
        )?
        .query_row(params![device, metric, key.2], |row| row.get(0))?;
    remembered.insert(key, id);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{self, answer, event, hour, minute};
    use crate::history::{SECOND, schema};

    fn counted(store: &Store, table: &str) -> i64 {
        store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn sum(store: &Store, metric: &str) -> f64 {
        let sql = "SELECT total(value) FROM points WHERE metric = ?";
        store.db.query_row(sql, [metric], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_comes_twice_is_kept_once() {
        let (_folder, mut store) = made::store();
        let records = vec![minute(1), minute(2), event(3, "hw.alarm"), minute(4)];
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap(), 4);
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap(), 0);
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &[minute(4), minute(5)])).unwrap(), 1);
        assert_eq!((counted(&store, "sample"), counted(&store, "event")), (4, 1));
        assert_eq!(sum(&store, "recurve.tokens"), 4.0 * made::TOKENS);
        assert_eq!(store.start_by_name("gw-1", 0).unwrap(), Start { store: "a".to_owned(), after: 5, since: None });
    }

    #[test]
    fn what_a_device_has_no_right_to_say_leaves_nothing_behind() {
        let (_folder, mut store) = made::store();
        for (first, sequence) in [(0, 0), (3, 2), (1, u64::MAX)] {
            let wrong = TelemetryRecord { first, sequence, ..minute(7) };
            let failure = store.keep("gw-1", "a", 0, &answer("a", &[minute(1), wrong])).unwrap_err();
            assert!(failure.message().unwrap().contains("gw-1 sends what is no history"), "{failure:?}");
            assert_eq!((counted(&store, "sample"), counted(&store, "cursor"), counted(&store, "series")), (0, 0, 0));
        }
        // And what it says rightly afterwards is kept.
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &[minute(1)])).unwrap(), 1);
        assert_eq!(sum(&store, "recurve.tokens"), made::TOKENS);
    }

    #[test]
    fn an_hour_takes_the_place_of_its_minutes() {
        let (_folder, mut store) = made::store();
        let minutes: Vec<_> = (1..=30).map(minute).collect();
        store.keep("gw-1", "a", 0, &answer("a", &minutes)).unwrap();
        store.keep("gw-2", "b", 0, &answer("b", &minutes)).unwrap();
        store.keep("gw-1", "a", 0, &answer("a", &[event(31, "hw.alarm")])).unwrap();
        // In the meantime the device made an hour of 60 minutes, with the event among them.
        let rest = [hour(1, 61), minute(62)];
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &rest)).unwrap(), 2);
        assert_eq!((counted(&store, "sample"), counted(&store, "event")), (2 + 30, 1));
        assert_eq!(sum(&store, "recurve.tokens"), 62.0 * made::TOKENS + 30.0 * made::TOKENS);
        assert_eq!(counted(&store, "value"), counted(&store, "value WHERE sample IN (SELECT id FROM sample)"));
        // A run that asked before the hour was made still brings minutes of it.
        assert_eq!(store.keep("gw-1", "a", 0, &answer("a", &[minute(29), minute(40), minute(61)])).unwrap(), 0);
        assert_eq!(counted(&store, "sample"), 2 + 30);
    }

    #[test]
    fn another_history_begins_anew_and_keeps_what_was_there() {
        let (_folder, mut store) = made::store();
        store.keep("gw-1", "a", 5, &answer("a", &[minute(1), minute(2)])).unwrap();
        let known = store.start_by_name("gw-1", 5).unwrap();
        assert_eq!((known.store.as_str(), known.after), ("a", 2));
        let new = store.start("b".to_owned(), 5).unwrap();
        assert_eq!((new.after, new.since), (0, Some(5)));
        store.keep("gw-1", "b", 5, &answer("b", &[minute(1)])).unwrap();
        assert_eq!(counted(&store, "sample"), 3);
        assert_eq!(store.start_by_name("gw-1", 5).unwrap(), Start { store: "b".to_owned(), after: 1, since: None });
        // A device that is called otherwise now is the same.
        store.keep("gw-9", "b", 5, &answer("b", &[minute(2)])).unwrap();
        let names: Vec<_> = store.histories().unwrap().into_iter().map(|kept| (kept.name, kept.store)).collect();
        assert_eq!(names, [("gw-1".to_owned(), "a".to_owned()), ("gw-9".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn who_wants_more_than_was_asked_for_gets_it() {
        let (_folder, mut store) = made::store();
        store.keep("gw-1", "a", 100, &answer("a", &[minute(50)])).unwrap();
        assert_eq!(store.start("a".to_owned(), 100).unwrap().since, None);
        let more = store.start("a".to_owned(), 10).unwrap();
        assert_eq!((more.after, more.since), (0, Some(10)));
        // Broken off in the middle: still asked for.
        store.keep("gw-1", "a", 10, &answer("a", &[minute(20)])).unwrap();
        assert_eq!(store.start("a".to_owned(), 10).unwrap().after, 0);
        store.complete("a", 10).unwrap();
        let done = store.start("a".to_owned(), 10).unwrap();
        assert_eq!((done.after, done.since), (50, None));
    }

    #[test]
    fn runs_at_the_same_time_keep_each_record_once() {
        let (folder, store) = made::store();
        drop(store);
        let path = folder.path().join("telemetry.db");
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let mut store = Store::open(&path).unwrap();
                    let mut new = 0;
                    for piece in 0..20_u64 {
                        let from = 1 + piece * 5;
                        let records: Vec<_> = (from..from + 5 + thread).map(minute).collect();
                        new += store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap();
                    }
                    new
                })
            })
            .collect();
        let new: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let store = Store::open(&path).unwrap();
        assert_eq!((new, counted(&store, "sample")), (103, 103));
        assert_eq!(sum(&store, "recurve.tokens"), 103.0 * made::TOKENS);
    }

    #[test]
    fn files_that_are_not_ours_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let newer = folder.path().join("newer.db");
        Store::open(&newer).unwrap().db.pragma_update(None, "user_version", 2).unwrap();
        let words = Store::open(&newer).unwrap_err().message().unwrap().to_owned();
        assert!(
            words.contains("version 2") && words.contains("newer agent-cli") && words.contains("--store"),
            "{words}"
        );
        let other = folder.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
        let failure = Store::open(&other).unwrap_err();
        assert!(matches!(&failure, Failure::Usage(words) if words.contains("no telemetry store")), "{failure:?}");
        let text = folder.path().join("text.db");
        std::fs::write(&text, "no database at all, but long enough to be taken for one ".repeat(40)).unwrap();
        assert!(matches!(Store::open(&text).unwrap_err(), Failure::Damaged(_)));
        assert!(std::fs::read_to_string(&text).unwrap().starts_with("no database"));
        let busy = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
        assert!(matches!(schema::failure(&text, &busy), Failure::Busy(_)));
    }

    #[test]
    fn other_tools_read_the_views() {
        let (_folder, mut store) = made::store();
        store.keep("gw-1", "a", 0, &answer("a", &[minute(1), event(2, "hw.alarm")])).unwrap();
        let (time, value): (String, f64) = store
            .db
            .query_row("SELECT time, value FROM points WHERE metric = 'hw.temperature'", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((time.as_str(), value), ("2026-03-01T00:01:00.000Z", 45.3));
        let counts: String = store
            .db
            .query_row("SELECT counts FROM histograms WHERE metric = 'gen_ai.server.time_to_first_token'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert!(counts.starts_with("[0,"), "{counts}");
        assert_eq!(counted(&store, "events WHERE severity = 'warning' AND device = 'gw-1'"), 1);
        assert_eq!(counted(&store, "sample WHERE ended - begin = 60 * 1000000000"), 1);
        assert_eq!(made::BEGIN % SECOND, 0);
    }
}
