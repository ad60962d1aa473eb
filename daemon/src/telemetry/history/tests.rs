use std::collections::BTreeMap;

use recurve_proto::v1::{Gauge, NodeEvent, Series, series::Value};
use tempfile::TempDir;

use super::*;

mod gone;

const DAY: u64 = 24 * 60 * 60;

fn limits() -> Limits {
    Limits { bytes: 50_000_000, minutes: Duration::from_secs(14 * DAY), hours: Duration::from_secs(400 * DAY) }
}

/// A minute that begins so many seconds after 1970, with so many tokens.
fn minute(begin: u64, tokens: f64) -> Content {
    let series =
        |metric: &str, value| Series { metric: metric.to_owned(), attributes: BTreeMap::new(), value: Some(value) };
    Content::Sample(Sample {
        begin: Some(prost_types::Timestamp { seconds: begin.cast_signed(), nanos: 0 }),
        length: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        series: vec![
            series("recurve.tokens", Value::Counter(tokens)),
            series("process.uptime", Value::Gauge(Gauge { last: 1.0, ..Gauge::default() })),
        ],
        ..Sample::default()
    })
}

fn event(kind: &str, at: u64) -> Content {
    Content::Event(NodeEvent {
        at: Some(prost_types::Timestamp { seconds: at.cast_signed(), nanos: 0 }),
        kind: kind.to_owned(),
        ..NodeEvent::default()
    })
}

fn all(history: &History) -> Vec<TelemetryRecord> {
    let (mut found, mut after) = (Vec::new(), 0);
    while let Some((records, upto)) = history.read(after, None, &[], 7).unwrap() {
        found.extend(records);
        after = upto;
    }
    found
}

fn tokens(record: &TelemetryRecord) -> Option<f64> {
    let Some(Content::Sample(sample)) = &record.content else { return None };
    sample.series.iter().find_map(|series| match series.value {
        Some(Value::Counter(tokens)) => Some(tokens),
        _ => None,
    })
}

fn open(dir: &TempDir) -> Opened {
    History::open(Some(dir.path()), limits()).unwrap()
}

#[test]
fn records_come_back_in_order_and_from_a_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir).history;
    for n in 0..20_u32 {
        assert_eq!(history.append(&minute(u64::from(n) * 60, n.into())).unwrap(), u64::from(n) + 1);
    }
    let found = all(&history);
    assert_eq!(found.iter().map(|record| record.sequence).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert!(found.iter().all(|record| record.first == record.sequence));
    let (later, upto) = history.read(15, None, &[], 100).unwrap().unwrap();
    assert_eq!((later.len(), upto), (5, 20));
    assert_eq!(history.read(20, None, &[], 100).unwrap().map(|(records, _)| records.len()), None);
    // Of one metric alone, and no events.
    history.append(&event("hw.alarm", 3000)).unwrap();
    let (some, upto) = history.read(15, None, &["recurve.tokens".to_owned()], 100).unwrap().unwrap();
    assert_eq!((some.len(), upto), (5, 21));
    assert!(some.iter().all(|record| matches!(&record.content, Some(Content::Sample(s)) if s.series.len() == 1)));
    // Of those that end after a time.
    let since = UNIX_EPOCH + Duration::from_secs(10 * 60);
    assert_eq!(history.read(0, Some(since), &[], 100).unwrap().unwrap().0.len(), 10 + 1);
}

#[test]
fn what_was_appended_is_there_after_the_process_is_gone_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir).history;
    first.append(&minute(0, 1.0)).unwrap();
    first.append(&event("daemon.started", 1)).unwrap();
    // What a power cut leaves: the files as they are now, the log of the database included.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let again = open(&copy);
    assert!(again.damaged.is_none());
    assert_eq!(again.history.store(), first.store());
    assert_eq!(all(&again.history).len(), 2);
    assert_eq!(again.history.last_event().unwrap().unwrap().kind, "daemon.started");
    // Numbers go on.
    assert_eq!(again.history.append(&minute(60, 1.0)).unwrap(), 3);
}

#[test]
fn a_damaged_file_is_put_aside_and_a_new_history_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = {
        let history = open(&dir).history;
        for n in 0..500 {
            history.append(&minute(n * 60, 1.0)).unwrap();
        }
        history.store()
    };
    let path = dir.path().join("history.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let opened = open(&dir);
    assert!(opened.damaged.unwrap().exists());
    assert_ne!(opened.history.store(), store);
    assert!(all(&opened.history).is_empty());
    drop(opened.history);
    std::fs::write(&path, "this is no database at all, and long enough to be taken for one".repeat(99)).unwrap();
    assert!(open(&dir).damaged.is_some());
}

#[test]
fn a_record_that_the_disk_refused_is_not_there_and_is_there_once_when_it_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir).history;
    history.append(&minute(0, 1.0)).unwrap();
    // As good as a full disk: the database may have no more pages.
    let pages = |most: i64| {
        history.lock().database.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).unwrap();
    };
    pages(1);
    let mut taken: u32 = 1;
    while history.append(&minute(u64::from(taken) * 60, 1.0)).is_ok() {
        taken += 1;
    }
    assert_eq!(all(&history).len(), taken as usize);
    pages(100_000);
    history.append(&minute(u64::from(taken) * 60, 1.0)).unwrap();
    assert_eq!(all(&history).iter().filter_map(tokens).sum::<f64>(), f64::from(taken) + 1.0);
}

#[test]
fn one_that_is_damaged_while_it_is_open_is_put_aside_at_once() {
    let dir = tempfile::tempdir().unwrap();
    {
        let history = open(&dir).history;
        for n in 0..500 {
            history.append(&minute(n * 60, 1.0)).unwrap();
        }
        history.close().unwrap();
    }
    let path = dir.path().join("history.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12_288..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let opened = open(&dir);
    assert!(opened.damaged.is_none(), "it was closed in order, so that nobody looked");
    let store = opened.history.store();
    // Whoever comes first finds it out, and both go on with a new one.
    opened.history.read(0, None, &[], 1000).unwrap();
    opened.history.append(&minute(0, 1.0)).unwrap();
    assert_ne!(opened.history.store(), store);
    assert_eq!(all(&opened.history).len(), 1);
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.filter(|name| name.contains("damaged") && name.ends_with(".db")).count(), 1);
}

#[test]
fn one_in_memory_moves_to_the_disk_as_soon_as_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(&dir);
    held.history.append(&minute(0, 1.0)).unwrap();
    let homeless = History::homeless(dir.path(), limits()).unwrap();
    homeless.append(&minute(60, 2.0)).unwrap();
    assert!(homeless.settle().is_err() && homeless.is_homeless());
    drop(held);
    assert!(homeless.settle().unwrap() && !homeless.is_homeless());
    assert_eq!(all(&homeless).iter().filter_map(tokens).collect::<Vec<_>>(), [1.0, 2.0]);
    assert!(!homeless.settle().unwrap(), "once is enough");
}

#[test]
fn another_daemon_and_a_newer_one_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(&dir);
    let refused = History::open(Some(dir.path()), limits()).unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    held.history.lock().database.pragma_update(None, "user_version", 9).unwrap();
    drop(held);
    let newer = History::open(Some(dir.path()), limits()).unwrap_err();
    assert!(matches!(newer, HistoryError::Newer { found: 9, .. }), "{newer}");
}

/// Minutes stay for half an hour of recorded time, and hours for so many minutes.
fn short(dir: &TempDir, hours: u64) -> History {
    let (minutes, hours) = (Duration::from_secs(30 * 60), Duration::from_secs(hours * 60));
    History::open(Some(dir.path()), Limits { minutes, hours, ..limits() }).unwrap().history
}

#[test]
fn old_minutes_become_hours_and_old_hours_go() {
    let dir = tempfile::tempdir().unwrap();
    let history = short(&dir, 1000);
    let begin = 1000 * DAY;
    for n in 0..180 {
        history.append(&minute(begin + n * 60, 1.0)).unwrap();
        if n == 30 {
            history.append(&event("hw.alarm", begin + n * 60)).unwrap();
        }
    }
    // Three hours are recorded: two of them are old enough, the last half of the third is not.
    history.compact().unwrap();
    let found = all(&history);
    let hours: Vec<_> = found.iter().filter(|record| record.first < record.sequence).collect();
    assert_eq!(hours.iter().map(|hour| (hour.first, hour.sequence)).collect::<Vec<_>>(), [(1, 61), (62, 121)]);
    assert_eq!(hours.iter().filter_map(|hour| tokens(hour)).collect::<Vec<_>>(), [60.0, 60.0]);
    assert_eq!(found.iter().filter_map(tokens).sum::<f64>(), 180.0, "nothing is counted twice or lost");
    assert_eq!(found.len(), 2 + 60 + 1, "the event stays");
    // A reader in the middle of an hour is given the hour, with what it stands for.
    let (rest, _) = history.read(40, None, &[], 1).unwrap().unwrap();
    assert_eq!((rest[0].first, rest[0].sequence), (1, 61));
    history.compact().unwrap();
    assert_eq!(all(&history).len(), found.len(), "once is enough");
    drop(history);
    // The first hour and the event ended more than 90 minutes before the last record.
    let history = short(&dir, 90);
    history.compact().unwrap();
    let found = all(&history);
    assert_eq!((found[0].first, found[0].sequence, found.len()), (62, 121, 1 + 60));
}

#[test]
fn a_start_with_a_wrong_clock_costs_no_record() {
    let begin = 20_000 * DAY;
    for wrong in [begin + 500 * DAY, 0] {
        let dir = tempfile::tempdir().unwrap();
        for (from, count) in [(begin, 100), (wrong, 10), (begin + 2 * DAY, 10)] {
            let history = open(&dir).history;
            history.compact().unwrap();
            history.append(&event("daemon.started", from)).unwrap();
            for n in 0..count {
                history.append(&minute(from + n * 60, 1.0)).unwrap();
            }
            history.compact().unwrap();
        }
        let found = all(&open(&dir).history);
        assert_eq!((found.len(), found.iter().filter_map(tokens).sum::<f64>()), (123, 120.0));
    }
}

#[test]
fn records_of_an_older_version_have_an_age() {
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::open(dir.path().join("history.db")).unwrap();
    old.execute_batch(
        "CREATE TABLE meta (store TEXT NOT NULL, clean INTEGER NOT NULL);
         INSERT INTO meta VALUES ('0191d9a0-0000-7000-8000-000000000000', 1);
         CREATE TABLE record (sequence INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER, kind INTEGER NOT NULL,
             ends INTEGER NOT NULL, packed BLOB NOT NULL);
         CREATE INDEX record_ends ON record (kind, ends);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    let begin = 1000 * DAY;
    let write = |database: &Connection, n: u64| {
        let packed = packed::pack(&minute(begin + n * 60, 1.0)).unwrap();
        let ends = (begin + (n + 1) * 60).cast_signed() * 1000;
        let row = params![MINUTE, ends, packed];
        database.execute("INSERT INTO record (kind, ends, packed) VALUES (?1, ?2, ?3)", row).unwrap();
    };
    // More than are placed at once.
    (0..1190).for_each(|n| write(&old, n));
    drop(old);
    let history = short(&dir, 90);
    // Those that a record follows before it has a place, and those of the older version afterwards.
    for n in 1190..1195 {
        history.append(&minute(begin + n * 60, 1.0)).unwrap();
    }
    (1195..1200).for_each(|n| write(&history.lock().database, n));
    history.compact().unwrap();
    let found = all(&history);
    // An hour that is 60 to 120 minutes old, and one of which the last half is too young.
    assert_eq!((found[0].first, found[0].sequence, found.len()), (1110, 1140, 1 + 60));
    assert_eq!(found.iter().filter_map(tokens).sum::<f64>(), 91.0);
}

#[test]
fn hours_stand_for_ranges_that_do_not_overlap_where_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let none = Limits { minutes: Duration::ZERO, ..limits() };
    let history = History::open(Some(dir.path()), none).unwrap().history;
    let begin = 1000 * DAY;
    // An hour, half of the next, and then the clock is set back by an hour.
    let minutes = (0..90).chain(30..150);
    for n in minutes {
        history.append(&minute(begin + n * 60, 1.0)).unwrap();
    }
    history.compact().unwrap();
    let found = all(&history);
    let ranges: Vec<_> = found.iter().map(|record| (record.first, record.sequence)).collect();
    assert_eq!(ranges, [(1, 60), (61, 90), (91, 120), (121, 180), (181, 210)]);
    assert_eq!(found.iter().filter_map(tokens).sum::<f64>(), 210.0);
}

#[test]
fn the_oldest_goes_when_the_bytes_are_full() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits { bytes: 4 << 20, ..limits() };
    let history = History::open(Some(dir.path()), small).unwrap().history;
    let mut noise = 1_u64;
    let blob: Vec<String> = (0..4000)
        .map(|_| {
            let mut text = String::new();
            for _ in 0..128 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(&format!("{:016x}", noise));
            }
            text
        })
        .collect();
    for (n, text) in blob.into_iter().enumerate() {
        let at = prost_types::Timestamp { seconds: i64::try_from(n).unwrap(), nanos: 0 };
        history.append(&Content::Event(NodeEvent { at: Some(at), message: text, ..NodeEvent::default() })).unwrap();
    }
    let found = all(&history);
    assert_eq!(found.last().unwrap().sequence, 4000, "the newest is there");
    assert!(found[0].sequence > 1 && found.len() > 500, "{} from {}", found.len(), found[0].sequence);
    let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 4 << 20, "{bytes}");
}

#[test]
fn records_that_the_disk_does_not_take_are_said_to_be_in_memory_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir).history;
    history.append(&minute(0, 1.0)).unwrap();
    assert!(!history.is_in_memory());
    let writable = |yes: bool| history.lock().database.pragma_update(None, "query_only", !yes).unwrap();
    writable(false);
    assert!(history.append(&minute(60, 1.0)).is_err());
    assert!(history.is_in_memory());
    writable(true);
    history.append(&minute(60, 1.0)).unwrap();
    assert!(!history.is_in_memory());
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_made_again_with_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("telemetry");
    let history = History::open(Some(&folder), limits()).unwrap().history;
    history.append(&minute(0, 1.0)).unwrap();
    history.look();
    assert!(!history.is_in_memory());
    std::fs::remove_dir_all(&folder).unwrap();
    history.append(&minute(60, 2.0)).unwrap();
    history.look();
    assert!(history.is_in_memory() && history.settle().unwrap() && !history.is_in_memory());
    history.look();
    history.append(&minute(120, 3.0)).unwrap();
    drop(history);
    let again = History::open(Some(&folder), limits()).unwrap();
    assert_eq!(all(&again.history).iter().filter_map(tokens).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
}

#[test]
fn where_no_new_history_can_be_begun_after_damage_records_are_kept_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("telemetry");
    let history = History::open(Some(&folder), limits()).unwrap().history;
    std::fs::remove_dir_all(&folder).unwrap();
    // A file where the folder was.
    std::fs::write(&folder, b"").unwrap();
    let damage = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None);
    history.begin_anew_if_damaged(&mut history.lock(), damage()).unwrap();
    assert!(history.is_in_memory());
    history.append(&minute(0, 1.0)).unwrap();
    assert!(history.settle().is_err() && history.is_in_memory());
    std::fs::remove_file(&folder).unwrap();
    assert!(history.settle().unwrap() && !history.is_in_memory());
    assert_eq!(all(&history).len(), 1);
}
