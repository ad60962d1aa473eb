//! What a window of time looked like, of a device and of a fleet.

use recurve_proto::v1::Histogram;
use recurve_telemetry::catalogue::name;
use recurve_telemetry::histogram::{self, Quantile};

use super::Store;
use crate::exit::Failure;

/// The bounds that percentiles are told by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) first_token: Vec<f64>,
    pub(crate) per_token: Vec<f64>,
}

/// Numbers of a device, or of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    /// Model and bundle that were served last.
    pub(crate) model: Option<(String, String)>,
    /// Requests for text that ended, and those that ended with an error.
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Tokens read and made.
    pub(crate) tokens_in: f64,
    pub(crate) tokens_out: f64,
    /// Tokens made in a second; none where nothing was measured.
    pub(crate) tokens_per_second: Option<f64>,
    /// Latencies in seconds.
    pub(crate) first_token: Histogram,
    pub(crate) per_token: Histogram,
    /// The highest temperature of any sensor, in degrees Celsius.
    pub(crate) hottest: Option<f64>,
    /// How long it was throttled; none where no board can tell.
    pub(crate) throttled: Option<f64>,
    /// Events.
    pub(crate) warnings: u64,
    pub(crate) failures: u64,
    /// How much time was measured, in seconds.
    pub(crate) seconds: f64,
    /// When the newest sample ended.
    pub(crate) newest: Option<i64>,
}

impl Summary {
    /// The requests that ended with an error, of a hundred.
    pub(crate) fn error_percent(&self) -> Option<f64> {
        (self.requests > 0).then(|| 100.0 * self.errors as f64 / self.requests as f64)
    }

    /// A device is added to its fleet, or a history to its device: counts add up, and percentiles are those of all values.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.newest >= self.newest {
            self.model = other.model.clone().or(self.model.take());
        }
        self.requests += other.requests;
        self.errors += other.errors;
        self.tokens_in += other.tokens_in;
        self.tokens_out += other.tokens_out;
        self.tokens_per_second = summed(self.tokens_per_second, other.tokens_per_second);
        histogram::add(&mut self.first_token, &other.first_token);
        histogram::add(&mut self.per_token, &other.per_token);
        self.hottest = greater(self.hottest, other.hottest);
        self.throttled = summed(self.throttled, other.throttled);
        self.warnings += other.warnings;
        self.failures += other.failures;
        self.seconds += other.seconds;
        self.newest = self.newest.max(other.newest);
    }
}

fn summed(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn greater(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

/// A percentile.
pub(crate) fn quantile(of: &Histogram, bounds: &[f64], q: f64) -> Option<Quantile> {
    histogram::quantile(of, bounds, q)
}

impl Store {
    /// The bounds of the latencies.
    pub(crate) fn latency_bounds(&self) -> Result<Bounds, Failure> {
        Ok(Bounds {
            first_token: self.bounds(name::TIME_TO_FIRST_TOKEN)?,
            per_token: self.bounds(name::TIME_PER_OUTPUT_TOKEN)?,
        })
    }

    /// What ended after `since` in a history.
    pub(crate) fn summary(&self, history: i64, since: i64) -> Result<Summary, Failure> {
        let mut found = Summary::default();
        for when in self.times(history, since)? {
            found.seconds += when.seconds;
            found.newest = found.newest.max(Some(when.ended));
        }
        self.histograms(history, name::REQUEST_DURATION, since, |attributes, _, values| {
            let count = histogram::count(values);
            found.requests += count;
            if attributes.get("error.type").is_some_and(|error| !error.is_empty()) {
                found.errors += count;
            }
        })?;
        self.histograms(history, name::TIME_TO_FIRST_TOKEN, since, |_, _, values| {
            histogram::add(&mut found.first_token, values);
        })?;
        self.histograms(history, name::TIME_PER_OUTPUT_TOKEN, since, |_, _, values| {
            histogram::add(&mut found.per_token, values);
        })?;
        self.values(history, name::TOKENS, since, |attributes, _, value| {
            match attributes.get("gen_ai.token.type").map(String::as_str) {
                Some("input") => found.tokens_in += value.delta.unwrap_or(0.0),
                Some("output") => found.tokens_out += value.delta.unwrap_or(0.0),
                _ => {}
            }
        })?;
        found.tokens_per_second = (found.seconds > 0.0).then(|| found.tokens_out / found.seconds);
        self.values(history, name::TEMPERATURE, since, |_, _, value| {
            found.hottest = greater(found.hottest, value.max.or(value.last));
        })?;
        self.values(history, name::HW_ALARM, since, |attributes, when, value| {
            if attributes.get("recurve.alarm").is_some_and(|alarm| alarm == "throttled") {
                let share = value.mean.or(value.last).unwrap_or(0.0);
                found.throttled = summed(found.throttled, Some(share * when.seconds));
            }
        })?;
        let mut newest = i64::MIN;
        self.values(history, name::MODEL, since, |attributes, when, _| {
            if when.ended >= newest {
                newest = when.ended;
                let of = |key: &str| attributes.get(key).cloned().unwrap_or_default();
                found.model = Some((of("gen_ai.request.model"), of("recurve.bundle.digest")));
            }
        })?;
        let severities = self.severities(history, since)?;
        let of = |severity: &str| severities.get(severity).copied().unwrap_or(0);
        (found.warnings, found.failures) = (of("warning"), of("error"));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use recurve_proto::v1::series::Value;

    use super::*;
    use crate::history::made::{self, answer, gauge, histogram_of, minute_of, series};

    fn rank(values: &mut [f64], q: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[((q * values.len() as f64).ceil() as usize).max(1) - 1]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn percentiles_of_a_fleet_are_those_of_all_its_requests(
            devices in prop::collection::vec(prop::collection::vec(prop::collection::vec(0.0_f64..400.0, 0..6), 1..5), 1..4),
            q in prop::sample::select(vec![0.5, 0.95, 0.99]),
        ) {
            let (_folder, mut store) = made::store();
            let mut all = Vec::new();
            for (place, minutes) in devices.iter().enumerate() {
                let of = format!("store-{place}");
                let records: Vec<_> = (1..).zip(minutes).map(|(sequence, values)| {
                    all.extend_from_slice(values);
                    let histogram = Value::Histogram(histogram_of(name::TIME_TO_FIRST_TOKEN, values));
                    minute_of(sequence, vec![series(name::TIME_TO_FIRST_TOKEN, &[], histogram)])
                }).collect();
                store.keep(&of, &of, 0, &answer(&of, &records)).unwrap();
            }
            let mut fleet = Summary::default();
            for kept in store.histories().unwrap() {
                fleet.add(&store.summary(kept.id, 0).unwrap());
            }
            let bounds = store.latency_bounds().unwrap().first_token;
            match quantile(&fleet.first_token, &bounds, q) {
                None => prop_assert!(all.is_empty()),
                Some(found) => {
                    let real = rank(&mut all, q);
                    prop_assert!(found.between.0 <= real && real <= found.between.1, "{} {:?}", real, found);
                }
            }
        }
    }

    #[test]
    fn a_window_is_what_ended_in_it() {
        let (_folder, mut store) = made::store();
        let histogram = |values: &[f64]| Value::Histogram(histogram_of(name::REQUEST_DURATION, values));
        let minute = |sequence: u64, celsius: f32, model: &str| {
            minute_of(
                sequence,
                vec![
                    series(name::REQUEST_DURATION, &[], histogram(&[1.0, 2.0, 3.0])),
                    series(name::REQUEST_DURATION, &[("error.type", "INTERNAL")], histogram(&[1.0])),
                    series(name::TOKENS, &[("gen_ai.token.type", "output")], Value::Counter(60.0)),
                    series(name::TOKENS, &[("gen_ai.token.type", "input")], Value::Counter(7.0)),
                    series(name::TEMPERATURE, &[("hw.id", "a")], gauge(celsius)),
                    series(name::HW_ALARM, &[("recurve.alarm", "throttled")], gauge(0.5)),
                    series(name::HW_ALARM, &[("recurve.alarm", "under-voltage")], gauge(1.0)),
                    series(name::MODEL, &[("gen_ai.request.model", model)], gauge(1.0)),
                ],
            )
        };
        let records = [minute(1, 90.0, "old"), minute(2, 60.0, "old"), minute(3, 70.0, "new")];
        store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap();
        let id = store.histories().unwrap()[0].id;
        let found = store.summary(id, made::BEGIN + 60 * crate::history::SECOND).unwrap();
        assert_eq!((found.requests, found.errors, found.error_percent()), (8, 2, Some(25.0)));
        assert_eq!((found.tokens_in, found.tokens_per_second, found.seconds), (14.0, Some(1.0), 120.0));
        assert_eq!((found.hottest, found.throttled), (Some(70.0), Some(60.0)));
        assert_eq!(found.model, Some(("new".to_owned(), String::new())));
        assert_eq!(store.summary(id, i64::MAX).unwrap(), Summary::default());
    }
}
