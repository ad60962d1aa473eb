//! Histories for tests.

use std::collections::BTreeMap;

use recurve_proto::v1::series::Value;
use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{
    Gauge, Histogram, Life, NodeEvent, Sample, Series, Severity, TelemetryRecord, TelemetryResponse,
};
use recurve_telemetry::catalogue::{self, METRICS, name};
use recurve_telemetry::{histogram, rollup};
use tempfile::TempDir;

use super::{SECOND, Store};

/// When the minute with the number 1 begins: 2026-03-01.
pub(crate) const BEGIN: i64 = 1_772_323_200 * SECOND;
/// Made in each minute.
pub(crate) const TOKENS: f64 = 120.0;

/// An empty store.
pub(crate) fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("telemetry.db")).unwrap();
    (folder, store)
}

/// What a daemon says of a history.
pub(crate) fn answer(store: &str, records: &[TelemetryRecord]) -> TelemetryResponse {
    TelemetryResponse {
        store: store.to_owned(),
        metrics: METRICS.iter().map(catalogue::Metric::description).collect(),
        records: records.to_vec(),
    }
}

/// A histogram of these values.
pub(crate) fn histogram_of(metric: &str, values: &[f64]) -> Histogram {
    let bounds = catalogue::find(metric).unwrap().bounds();
    let mut histogram = Histogram { counts: vec![0; bounds.len() + 1], sum: values.iter().sum() };
    for value in values {
        histogram.counts[bounds.partition_point(|bound| bound < value)] += 1;
    }
    histogram::trimmed(histogram)
}

/// A series.
pub(crate) fn series(metric: &str, attributes: &[(&str, &str)], value: Value) -> Series {
    let attributes: BTreeMap<String, String> =
        attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Series { metric: metric.to_owned(), attributes, value: Some(value) }
}

/// A gauge with one value.
pub(crate) fn gauge(last: f32) -> Value {
    Value::Gauge(Gauge { last, ..Gauge::default() })
}

/// A minute of these series.
pub(crate) fn minute_of(sequence: u64, series: Vec<Series>) -> TelemetryRecord {
    let begin = BEGIN / SECOND + 60 * (i64::try_from(sequence).unwrap() - 1);
    let sample = Sample {
        begin: Some(prost_types::Timestamp { seconds: begin, nanos: 0 }),
        length: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        life: Some(Life { boot: "boot".to_owned(), instance: "life".to_owned(), since_boot: None }),
        series,
    };
    TelemetryRecord { sequence, first: sequence, content: Some(Content::Sample(sample)) }
}

/// A minute in which not much happened.
pub(crate) fn minute(sequence: u64) -> TelemetryRecord {
    let latency = histogram_of(name::TIME_TO_FIRST_TOKEN, &[0.2, 0.3, 0.6]);
    minute_of(
        sequence,
        vec![
            series(name::TOKENS, &[("gen_ai.token.type", "output")], Value::Counter(TOKENS)),
            series(name::TEMPERATURE, &[("hw.id", "cpu")], gauge(45.3)),
            series(name::TIME_TO_FIRST_TOKEN, &[], Value::Histogram(latency)),
        ],
    )
}

/// The hour that stands for these minutes.
pub(crate) fn hour(first: u64, sequence: u64) -> TelemetryRecord {
    let samples: Vec<Sample> = (first..=sequence)
        .filter_map(|number| match minute(number).content {
            Some(Content::Sample(sample)) => Some(sample),
            _ => None,
        })
        .collect();
    TelemetryRecord { sequence, first, content: rollup::merge(&samples).map(Content::Sample) }
}

/// An event of a kind that is a warning, at the beginning of the minute with its number.
pub(crate) fn event(sequence: u64, kind: &str) -> TelemetryRecord {
    let event = NodeEvent {
        at: Some(prost_types::Timestamp {
            seconds: BEGIN / SECOND + 60 * (i64::try_from(sequence).unwrap() - 1),
            nanos: 0,
        }),
        kind: kind.to_owned(),
        severity: Severity::Warning.into(),
        message: format!("{kind} of <b>{sequence}</b>"),
        ..NodeEvent::default()
    };
    TelemetryRecord { sequence, first: sequence, content: Some(Content::Event(event)) }
}
