//! What a node recorded is there after whatever happened to it, and a disk that refuses records hurts no request.

use std::path::Path;
use std::time::Duration;

use recurve_proto::v1;
use recurve_proto::v1::series::Value;
use recurve_tests::client::{connect, generate, greedy, soon};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::node::{history, kinds, operator, samples};
use recurve_tests::process::agent_cli;
use recurve_tests::shim::{Fault, with_fault};
use recurve_tests::world;
use rustix::process::Signal;

/// Lives that end without a word.
const KILLS: u64 = 8;

fn setup(telemetry: &Path) -> Setup {
    Setup::new(&world::tiny("int8"))
        .unix()
        .set("telemetry.dir", telemetry.display())
        .set("telemetry.interval", 1)
        .set("engine.kernels", "recurve")
}

/// Something happens that is recorded at once.
async fn drain_and_resume(daemon: &Daemon) {
    for resume in [false, true] {
        let mut told = soon(operator(daemon).await.drain(v1::DrainRequest { resume })).await.unwrap().into_inner();
        while soon(told.message()).await.unwrap().is_some() {}
    }
}

async fn ask(daemon: &Daemon) {
    generate(&connect(daemon).await, greedy(&[2, 9], 4)).await.unwrap();
}

/// The records, as soon as they hold something.
async fn until(daemon: &Daemon, holds: impl Fn(&[v1::TelemetryRecord]) -> bool) -> Vec<v1::TelemetryRecord> {
    for _ in 0..400 {
        let records = history(daemon, 0).await.1;
        if holds(&records) {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no such record came");
}

/// Tokens that were made, by all records.
fn made(records: &[v1::TelemetryRecord]) -> f64 {
    let series = samples(records).flat_map(|sample| &sample.series);
    let made = series.filter(|series| {
        series.metric == "recurve.tokens" && series.attributes.get("gen_ai.token.type").is_some_and(|t| t == "output")
    });
    made.filter_map(|series| match series.value {
        Some(Value::Counter(tokens)) => Some(tokens),
        _ => None,
    })
    .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_once_is_there_after_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut known: Vec<v1::TelemetryRecord> = Vec::new();
    let mut stores = std::collections::BTreeSet::new();
    for life in 0..KILLS {
        let daemon = setup(dir.path()).start();
        let (store, before) = history(&daemon, 0).await;
        stores.insert(store);
        assert_eq!(before[..known.len()], known[..], "life {life}");
        for _ in 0..=life {
            ask(&daemon).await;
            drain_and_resume(&daemon).await;
        }
        known = history(&daemon, 0).await.1;
        daemon.signal(Signal::KILL);
        assert!(!daemon.ended().success());
    }
    assert_eq!(stores.len(), 1, "it is one history");
    let daemon = setup(dir.path()).start();
    let records = until(&daemon, |records| {
        kinds(records).iter().filter(|kind| **kind == "daemon.restarted").count() as u64 == KILLS
    })
    .await;
    assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(kinds(&records)[0], "daemon.started");
    assert!(daemon.stop().success());
    let daemon = setup(dir.path()).start();
    let kinds_now = until(&daemon, |records| kinds(records).last() == Some(&"daemon.started")).await;
    assert_eq!(kinds(&kinds_now)[kinds(&kinds_now).len() - 2], "daemon.stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_is_counted_once_over_stops() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let daemon = setup(dir.path()).start();
        for _ in 0..5 {
            ask(&daemon).await;
        }
        // The last record is written when it stops.
        assert!(daemon.stop().success());
    }
    let daemon = setup(dir.path()).start();
    let records = history(&daemon, 0).await.1;
    assert_eq!(made(&records), 3.0 * 5.0 * 4.0);
    let lasted: f64 = samples(&records)
        .filter_map(|sample| sample.length)
        .map(|length| length.seconds as f64 + f64::from(length.nanos) / 1e9)
        .sum();
    assert!(lasted > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_records_hurts_no_request_and_what_was_kept_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, log) = (dir.path().join("telemetry"), dir.path().join("log"));
    assert!(setup(&telemetry).start().stop().success());
    let life = async |fault: Option<(u64, Fault)>| {
        let faulty = with_fault(setup(&telemetry), &telemetry, &log, fault).allow("");
        let Some(daemon) = faulty.attempt() else {
            assert_eq!(fault.map(|(_, fault)| fault), Some(Fault::Stop), "only a kill ends it");
            return;
        };
        for _ in 0..3 {
            match fault {
                // It may be killed in between.
                Some((_, Fault::Stop)) => {
                    let args = ["generate", "--tokens", "2,9", "--max-tokens", "2", "--on", &daemon.address];
                    let _ = agent_cli(&args).output();
                }
                _ => {
                    ask(&daemon).await;
                    drain_and_resume(&daemon).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        daemon.terminate();
        drop(daemon);
    };
    life(None).await;
    let changes = std::fs::read_to_string(&log).unwrap().lines().count() as u64;
    assert!(changes > 10, "{changes}");
    let mut known = 0;
    for at in 0..12 {
        let fault = [Fault::Error, Fault::Short, Fault::Stop][at as usize % 3];
        life(Some((at * changes / 12, fault))).await;
        // Whatever happened, the next daemon reads what there is.
        let daemon = setup(&telemetry).start();
        let records = history(&daemon, 0).await.1;
        assert!(kinds(&records).contains(&"daemon.started"), "{at} {fault:?}");
        let found = records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
        assert!(found && records.len() >= known, "{at} {fault:?}: what was there is there");
        known = records.len();
        assert!(daemon.stop().success());
    }
}
