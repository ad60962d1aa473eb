//! Records as OTLP, for collectors: sums and histograms with delta temporality, gauges with their last value, all with the
//! times at which they were measured.

use std::collections::BTreeMap;

use crate::wire::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use crate::wire::metrics::v1 as otlp;
use crate::wire::metrics::v1::metric::Data;
use crate::wire::resource::v1::Resource;
use recurve_proto::v1::{Sample, Series, series::Value};

use crate::catalogue::{self, Kind};
use crate::histogram;
use crate::rollup::seconds;

/// The name of the instrumentation scope.
pub const SCOPE: &str = "recurve";

/// A sample of a device as OTLP. `resource`: what tells the device from others, such as `host.name`.
pub fn metrics(sample: &Sample, resource: &BTreeMap<String, String>) -> otlp::ResourceMetrics {
    let begin = sample.begin.map_or(0, |at| nanos(at.seconds as f64 + f64::from(at.nanos) / 1e9));
    let end = begin + nanos(seconds(sample));
    let mut metrics: BTreeMap<&str, otlp::Metric> = BTreeMap::new();
    for series in &sample.series {
        let Some(known) = catalogue::find(&series.metric) else { continue };
        let metric = metrics.entry(known.name).or_insert_with(|| otlp::Metric {
            name: known.name.to_owned(),
            description: known.doc.to_owned(),
            unit: known.unit.to_owned(),
            data: Some(empty(known.kind)),
            ..otlp::Metric::default()
        });
        if let Some(data) = &mut metric.data {
            add(data, series, known.bounds(), (begin, end));
        }
    }
    otlp::ResourceMetrics {
        resource: Some(Resource { attributes: key_values(resource), ..Resource::default() }),
        scope_metrics: vec![otlp::ScopeMetrics {
            scope: Some(InstrumentationScope { name: SCOPE.to_owned(), ..InstrumentationScope::default() }),
            metrics: metrics.into_values().collect(),
            ..otlp::ScopeMetrics::default()
        }],
        ..otlp::ResourceMetrics::default()
    }
}

fn empty(kind: Kind) -> Data {
    let delta = otlp::AggregationTemporality::Delta.into();
    match kind {
        Kind::Gauge => Data::Gauge(otlp::Gauge::default()),
        // Its value is no change but a state, which for OTLP is cumulative.
        Kind::UpDownCounter => Data::Sum(otlp::Sum {
            aggregation_temporality: otlp::AggregationTemporality::Cumulative.into(),
            is_monotonic: false,
            ..otlp::Sum::default()
        }),
        Kind::Counter => {
            Data::Sum(otlp::Sum { aggregation_temporality: delta, is_monotonic: true, ..otlp::Sum::default() })
        }
        Kind::Histogram(_) => {
            Data::Histogram(otlp::Histogram { aggregation_temporality: delta, ..otlp::Histogram::default() })
        }
    }
}

fn add(data: &mut Data, series: &Series, bounds: &[f64], (begin, end): (u64, u64)) {
    let attributes = key_values(&series.attributes);
    let point = |value: f64| otlp::NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: begin,
        time_unix_nano: end,
        value: Some(otlp::number_data_point::Value::AsDouble(value)),
        ..otlp::NumberDataPoint::default()
    };
    match (data, &series.value) {
        (Data::Gauge(gauge), Some(Value::Gauge(value))) => gauge.data_points.push(point(value.last.into())),
        (Data::Sum(sum), Some(Value::Gauge(value))) => sum.data_points.push(point(value.last.into())),
        (Data::Sum(sum), Some(Value::Counter(value))) => sum.data_points.push(point(*value)),
        (Data::Histogram(of), Some(Value::Histogram(value))) => {
            let mut bucket_counts = value.counts.clone();
            bucket_counts.resize(bounds.len() + 1, 0);
            of.data_points.push(otlp::HistogramDataPoint {
                attributes,
                start_time_unix_nano: begin,
                time_unix_nano: end,
                count: histogram::count(value),
                sum: Some(value.sum),
                bucket_counts,
                explicit_bounds: bounds.to_vec(),
                ..otlp::HistogramDataPoint::default()
            });
        }
        _ => {}
    }
}

/// Text as OTLP's attributes.
pub fn key_values(attributes: &BTreeMap<String, String>) -> Vec<KeyValue> {
    let value = |text: &String| AnyValue { value: Some(any_value::Value::StringValue(text.clone())) };
    attributes
        .iter()
        .map(|(key, text)| KeyValue { key: key.clone(), value: Some(value(text)), ..KeyValue::default() })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and below 2^63 until 2262"
)]
fn nanos(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9).round() as u64
}
