//! Many samples become one: minutes an hour, devices a fleet.

use std::collections::BTreeMap;

use recurve_proto::v1::{Gauge, Sample, Series, series::Value};

use crate::histogram;

/// What a series is: its metric and its attributes.
type Key<'a> = (&'a str, &'a BTreeMap<String, String>);

/// One sample of these, which follow one another; none of none. Counters and histograms are added; a gauge has the last value,
/// the least, the greatest, and the mean by time.
pub fn merge(samples: &[Sample]) -> Option<Sample> {
    let (first, last) = samples.first().zip(samples.last())?;
    let mut sums: BTreeMap<Key<'_>, Sum> = BTreeMap::new();
    for sample in samples {
        let length = seconds(sample);
        for series in &sample.series {
            let Some(value) = &series.value else { continue };
            let sum = sums.entry((&series.metric, &series.attributes));
            match sum {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(Sum::of(value, length));
                }
                std::collections::btree_map::Entry::Occupied(mut place) => place.get_mut().add(value, length),
            }
        }
    }
    let series = sums
        .into_iter()
        .map(|((metric, attributes), sum)| Series {
            metric: metric.to_owned(),
            attributes: attributes.clone(),
            value: Some(sum.value()),
        })
        .collect();
    let length: f64 = samples.iter().map(seconds).sum();
    Some(Sample {
        begin: first.begin,
        length: std::time::Duration::try_from_secs_f64(length).ok().and_then(|length| length.try_into().ok()),
        life: last.life.clone(),
        series,
    })
}

/// How long a sample's interval was.
pub fn seconds(sample: &Sample) -> f64 {
    sample.length.map_or(0.0, |length| length.seconds as f64 + f64::from(length.nanos) / 1e9)
}

/// The least, the greatest and the mean value of a gauge in its interval.
pub fn range(gauge: &Gauge) -> (f32, f32, f32) {
    let or_last = |value: Option<f32>| value.unwrap_or(gauge.last);
    (or_last(gauge.min), or_last(gauge.max), or_last(gauge.mean))
}

enum Sum {
    Gauge { last: f32, min: f32, max: f32, weighted: f64, length: f64 },
    Counter(f64),
    Histogram(recurve_proto::v1::Histogram),
}

impl Sum {
    fn of(value: &Value, length: f64) -> Self {
        match value {
            Value::Gauge(gauge) => {
                let (min, max, mean) = range(gauge);
                Self::Gauge { last: gauge.last, min, max, weighted: f64::from(mean) * length, length }
            }
            Value::Counter(more) => Self::Counter(*more),
            Value::Histogram(more) => Self::Histogram(more.clone()),
        }
    }

    /// A value of another kind under the same name is left out.
    fn add(&mut self, value: &Value, more_length: f64) {
        match (self, value) {
            (Self::Gauge { last, min, max, weighted, length }, Value::Gauge(gauge)) => {
                let (low, high, mean) = range(gauge);
                *last = gauge.last;
                *min = min.min(low);
                *max = max.max(high);
                *weighted += f64::from(mean) * more_length;
                *length += more_length;
            }
            (Self::Counter(sum), Value::Counter(more)) => *sum += more,
            (Self::Histogram(sum), Value::Histogram(more)) => histogram::add(sum, more),
            _ => {}
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Gauge { last, min, max, weighted, length } => {
                let mean = if length > 0.0 { (weighted / length) as f32 } else { last };
                let spread = min != max;
                Value::Gauge(Gauge {
                    last,
                    min: spread.then_some(min),
                    max: spread.then_some(max),
                    mean: spread.then_some(mean),
                })
            }
            Self::Counter(sum) => Value::Counter(sum),
            Self::Histogram(sum) => Value::Histogram(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(length: i64, value: Value) -> Sample {
        let series = Series { metric: "m".to_owned(), attributes: BTreeMap::new(), value: Some(value) };
        Sample {
            length: Some(prost_types::Duration { seconds: length, nanos: 0 }),
            series: vec![series],
            ..Sample::default()
        }
    }

    fn gauge(last: f32) -> Value {
        Value::Gauge(Gauge { last, ..Gauge::default() })
    }

    #[test]
    fn gauges_keep_their_range_and_weigh_by_time() {
        let merged = merge(&[sample(60, gauge(10.0)), sample(20, gauge(50.0)), sample(40, gauge(20.0))]).unwrap();
        assert!((seconds(&merged) - 120.0).abs() < 1e-9);
        let Some(Value::Gauge(gauge)) = &merged.series[0].value else { panic!("{merged:?}") };
        assert_eq!((gauge.last, range(gauge)), (20.0, (10.0, 50.0, 20.0)));
    }

    #[test]
    fn counters_and_histograms_are_added() {
        let merged = merge(&[sample(60, Value::Counter(2.0)), sample(60, Value::Counter(3.5))]).unwrap();
        assert_eq!(merged.series[0].value, Some(Value::Counter(5.5)));
        let one = Value::Histogram(recurve_proto::v1::Histogram { counts: vec![0, 1], sum: 2.0 });
        let merged = merge(&[sample(60, one.clone()), sample(60, one)]).unwrap();
        let both = recurve_proto::v1::Histogram { counts: vec![0, 2], sum: 4.0 };
        assert_eq!(merged.series[0].value, Some(Value::Histogram(both)));
        assert_eq!(merge(&[]), None);
    }
}
