//! Readings of cumulative metrics, as OpenTelemetry's SDK gives them, become the series of a sample.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::wire::common::v1::{KeyValue, any_value};
use crate::wire::metrics::v1::{ResourceMetrics, metric::Data, number_data_point};
use recurve_proto::v1::{Gauge, Histogram, Series, series::Value};

use crate::histogram;

type Key = (String, BTreeMap<String, String>);

/// What was read since the last sample.
#[derive(Debug, Default)]
pub struct Builder {
    /// Counters and histograms, where the last sample ended.
    before: BTreeMap<Key, Total>,
    /// And where they stand now.
    now: BTreeMap<Key, Total>,
    gauges: BTreeMap<Key, Range>,
}

#[derive(Debug, Clone, PartialEq)]
enum Total {
    Counter(f64),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Range {
    last: f64,
    min: f64,
    max: f64,
    sum: f64,
    count: u32,
}

impl Builder {
    /// Takes a reading: gauges widen their range, counters and histograms are what they are now.
    pub fn observe(&mut self, readings: &[ResourceMetrics]) {
        let metrics = readings.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        for metric in metrics {
            let key = |attributes: &[KeyValue]| (metric.name.clone(), attribute_map(attributes));
            match &metric.data {
                Some(Data::Gauge(gauge)) => {
                    for point in &gauge.data_points {
                        self.gauge(key(&point.attributes), number(point.value));
                    }
                }
                Some(Data::Sum(sum)) if !sum.is_monotonic => {
                    for point in &sum.data_points {
                        self.gauge(key(&point.attributes), number(point.value));
                    }
                }
                Some(Data::Sum(sum)) => {
                    for point in &sum.data_points {
                        self.now.insert(key(&point.attributes), Total::Counter(number(point.value)));
                    }
                }
                Some(Data::Histogram(histogram)) => {
                    for point in &histogram.data_points {
                        let total = Histogram { counts: point.bucket_counts.clone(), sum: point.sum.unwrap_or(0.0) };
                        self.now.insert(key(&point.attributes), Total::Histogram(total));
                    }
                }
                Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => {}
            }
        }
    }

    fn gauge(&mut self, key: Key, value: f64) {
        match self.gauges.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Range { last: value, min: value, max: value, sum: value, count: 1 });
            }
            Entry::Occupied(mut place) => {
                let range = place.get_mut();
                range.last = value;
                range.min = range.min.min(value);
                range.max = range.max.max(value);
                range.sum += value;
                range.count += 1;
            }
        }
    }

    /// The series of the sample that ends now; the next one begins. What did not grow is left out.
    pub fn finish(&mut self) -> Vec<Series> {
        let gauges =
            std::mem::take(&mut self.gauges).into_iter().map(|(key, range)| (key, Value::Gauge(range.gauge())));
        let before = &self.before;
        let grown = self.now.iter().filter_map(|(key, now)| {
            let value = match (now, before.get(key)) {
                (Total::Counter(now), Some(Total::Counter(before))) if now >= before => Value::Counter(now - before),
                (Total::Counter(now), _) => Value::Counter(*now),
                (Total::Histogram(now), Some(Total::Histogram(before))) => {
                    Value::Histogram(histogram::since(now, before))
                }
                (Total::Histogram(now), _) => Value::Histogram(histogram::trimmed(now.clone())),
            };
            let nothing = match &value {
                Value::Counter(more) => *more == 0.0,
                Value::Histogram(more) => more.counts.is_empty(),
                Value::Gauge(_) => false,
            };
            (!nothing).then(|| (key.clone(), value))
        });
        let mut series: Vec<_> = gauges.chain(grown).collect();
        series.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.before.clone_from(&self.now);
        series
            .into_iter()
            .map(|((metric, attributes), value)| Series { metric, attributes, value: Some(value) })
            .collect()
    }
}

impl Range {
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are more than a sensor has")]
    fn gauge(&self) -> Gauge {
        let spread = self.min != self.max;
        Gauge {
            last: self.last as f32,
            min: spread.then_some(self.min as f32),
            max: spread.then_some(self.max as f32),
            mean: spread.then_some((self.sum / f64::from(self.count)) as f32),
        }
    }
}

/// Attributes as text.
pub fn attribute_map(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        _ => String::new(),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn number(value: Option<number_data_point::Value>) -> f64 {
    match value {
        Some(number_data_point::Value::AsDouble(number)) => number,
        Some(number_data_point::Value::AsInt(number)) => number as f64,
        None => 0.0,
    }
}
