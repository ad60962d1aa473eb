//! A window of time in steps: lines of a device and of a fleet.

use std::collections::BTreeMap;

use recurve_proto::v1::Histogram;
use recurve_telemetry::catalogue::name;
use recurve_telemetry::histogram;

use super::read::When;
use super::summary::Bounds;
use super::{SECOND, Store};
use crate::exit::Failure;

const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A window, cut into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Where the first begins.
    pub(crate) begin: i64,
    /// How long each is.
    pub(crate) step: i64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Steps {
    /// Minutes for a window of up to six hours, then five minutes, and hours above four days.
    pub(crate) fn of(begin: i64, end: i64) -> Self {
        let length = end.saturating_sub(begin).max(MINUTE);
        let step = match length {
            length if length <= 6 * HOUR => MINUTE,
            length if length <= 4 * 24 * HOUR => 5 * MINUTE,
            _ => HOUR,
        };
        let begin = begin.div_euclid(step) * step;
        let count = (end.saturating_sub(begin).max(step) - 1) / step + 1;
        Self { begin, step, count: usize::try_from(count).unwrap_or(1) }
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> i64 {
        self.begin.saturating_add(self.step.saturating_mul(i64::try_from(self.count).unwrap_or(i64::MAX)))
    }

    /// The step that a moment at the end of a sample belongs to.
    fn at(&self, ended: i64) -> Option<usize> {
        let step = ended.checked_sub(1)?.checked_sub(self.begin)?.div_euclid(self.step);
        usize::try_from(step).ok().filter(|step| *step < self.count)
    }

    /// The steps that a sample covers: one, or those of an hour.
    fn over(&self, when: When) -> std::ops::Range<usize> {
        // The middle of a sample that is not longer than a step says where it belongs.
        let length = when.ended.saturating_sub(when.begin);
        if length <= self.step + self.step / 2 {
            let middle = when.begin.saturating_add(length / 2).saturating_add(1);
            return self.at(middle).map_or(0..0, |at| at..at + 1);
        }
        let first = self.at(when.begin.saturating_add(1)).unwrap_or(0);
        self.at(when.ended)
            .or_else(|| (when.ended > self.end()).then(|| self.count - 1))
            .map_or(0..0, |last| first..last + 1)
    }
}

/// A line: a value for each step, where there is one.
pub(crate) type Line = Vec<Option<f64>>;

/// A model on a device, from when to when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) model: String,
    pub(crate) bundle: String,
    pub(crate) begin: i64,
    pub(crate) ended: i64,
}

/// Lines of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lines {
    /// Tokens made in a second.
    pub(crate) tokens: Line,
    /// Requests that ended in a minute, and those of them that ended with an error.
    pub(crate) requests: Line,
    pub(crate) errors: Line,
    /// The highest temperature.
    pub(crate) temperature: Line,
    /// The share of the time in which the hardware complained of anything.
    pub(crate) alarm: Line,
    /// Models, in order.
    pub(crate) models: Vec<Served>,
    /// The latencies' histograms.
    pub(crate) latency: Latency,
}

/// Latencies in each step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Latency {
    first_token: BTreeMap<usize, Histogram>,
    per_token: BTreeMap<usize, Histogram>,
}

/// Percentiles over time: 50, 95, 99.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) first_token: [Line; 3],
    pub(crate) per_token: [Line; 3],
}

impl Lines {
    fn empty(steps: &Steps) -> Self {
        let line = || vec![None; steps.count];
        Self {
            tokens: line(),
            requests: line(),
            errors: line(),
            temperature: line(),
            alarm: line(),
            models: Vec::new(),
            latency: Latency::default(),
        }
    }

    /// A device is added to its fleet, or a history to its device.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.tokens.is_empty() {
            self.clone_from(other);
            return;
        }
        for (to, more) in [
            (&mut self.tokens, &other.tokens),
            (&mut self.requests, &other.requests),
            (&mut self.errors, &other.errors),
        ] {
            joined(to, more, |a, b| a + b);
        }
        joined(&mut self.temperature, &other.temperature, f64::max);
        joined(&mut self.alarm, &other.alarm, f64::max);
        self.models.extend(other.models.iter().cloned());
        for (to, more) in [
            (&mut self.latency.first_token, &other.latency.first_token),
            (&mut self.latency.per_token, &other.latency.per_token),
        ] {
            for (step, values) in more {
                histogram::add(to.entry(*step).or_default(), values);
            }
        }
    }

    /// Models, and latencies of so many steps together.
    pub(crate) fn together(&self, steps: usize) -> Self {
        let joined = |of: &BTreeMap<usize, Histogram>| {
            let mut joined: BTreeMap<usize, Histogram> = BTreeMap::new();
            for (step, values) in of {
                histogram::add(joined.entry(step / steps.max(1)).or_default(), values);
            }
            joined
        };
        let latency =
            Latency { first_token: joined(&self.latency.first_token), per_token: joined(&self.latency.per_token) };
        Self { models: self.models.clone(), latency, ..Self::default() }
    }

    /// The percentiles of all values in each step.
    pub(crate) fn percentiles(&self, steps: &Steps, bounds: &Bounds) -> Percentiles {
        let line = |of: &BTreeMap<usize, Histogram>, bounds: &[f64], q: f64| {
            let mut line = vec![None; steps.count];
            for (step, values) in of {
                if let Some(place) = line.get_mut(*step) {
                    *place = histogram::quantile(values, bounds, q).map(|quantile| quantile.value);
                }
            }
            line
        };
        Percentiles {
            first_token: [0.5, 0.95, 0.99].map(|q| line(&self.latency.first_token, &bounds.first_token, q)),
            per_token: [0.5, 0.95, 0.99].map(|q| line(&self.latency.per_token, &bounds.per_token, q)),
        }
    }
}

fn joined(to: &mut Line, more: &Line, join: impl Fn(f64, f64) -> f64) {
    for (to, more) in to.iter_mut().zip(more) {
        *to = match (*to, *more) {
            (Some(a), Some(b)) => Some(join(a, b)),
            (a, b) => a.or(b),
        };
    }
}

impl Store {
    /// The lines of a history.
    pub(crate) fn lines(&self, history: i64, steps: &Steps) -> Result<Lines, Failure> {
        let mut lines = Lines::empty(steps);
        // How much of each step was measured: what is not told of it is none of it.
        let mut covered = vec![0.0_f64; steps.count];
        let since = steps.begin;
        let share = |range: &std::ops::Range<usize>| 1.0 / range.len().max(1) as f64;
        for when in self.times(history, since)? {
            let range = steps.over(when);
            let part = when.seconds * share(&range);
            covered.get_mut(range).into_iter().flatten().for_each(|place| *place += part);
        }
        for line in [&mut lines.tokens, &mut lines.requests, &mut lines.errors] {
            *line = covered.iter().map(|seconds| (*seconds > 0.0).then_some(0.0)).collect();
        }
        let more = |line: &mut Line, when: When, amount: f64| {
            let range = steps.over(when);
            let part = amount * share(&range);
            line.get_mut(range).into_iter().flatten().for_each(|place| *place = Some(place.unwrap_or(0.0) + part));
        };
        self.values(history, name::TOKENS, since, |attributes, when, value| {
            if attributes.get("gen_ai.token.type").is_some_and(|kind| kind == "output") {
                more(&mut lines.tokens, when, value.delta.unwrap_or(0.0));
            }
        })?;
        self.histograms(history, name::REQUEST_DURATION, since, |attributes, when, values| {
            let count = histogram::count(values) as f64;
            more(&mut lines.requests, when, count);
            if attributes.get("error.type").is_some_and(|error| !error.is_empty()) {
                more(&mut lines.errors, when, count);
            }
        })?;
        let rate = |line: &mut Line, unit: f64| {
            for (place, seconds) in line.iter_mut().zip(&covered) {
                *place = place.filter(|_| *seconds > 0.0).map(|sum| sum * unit / seconds);
            }
        };
        rate(&mut lines.tokens, 1.0);
        rate(&mut lines.requests, 60.0);
        rate(&mut lines.errors, 60.0);
        self.machine(history, steps, &mut lines)?;
        let Latency { first_token, per_token } = &mut lines.latency;
        for (metric, to) in [(name::TIME_TO_FIRST_TOKEN, first_token), (name::TIME_PER_OUTPUT_TOKEN, per_token)] {
            self.histograms(history, metric, since, |_, when, values| {
                if let Some(step) = steps.over(when).last() {
                    histogram::add(to.entry(step).or_default(), values);
                }
            })?;
        }
        Ok(lines)
    }

    /// Temperature, complaints, models.
    fn machine(&self, history: i64, steps: &Steps, lines: &mut Lines) -> Result<(), Failure> {
        let highest = |line: &mut Line, when: When, value: f64| {
            let places = line.get_mut(steps.over(when)).into_iter().flatten();
            places.for_each(|place| *place = Some(place.map_or(value, |most| most.max(value))));
        };
        let since = steps.begin;
        self.values(history, name::TEMPERATURE, since, |_, when, value| {
            if let Some(value) = value.max.or(value.last) {
                highest(&mut lines.temperature, when, value);
            }
        })?;
        self.values(history, name::HW_ALARM, since, |_, when, value| {
            if let Some(value) = value.mean.or(value.last) {
                highest(&mut lines.alarm, when, value);
            }
        })?;
        let mut served: Vec<Served> = Vec::new();
        self.values(history, name::MODEL, since, |attributes, when, _| {
            let of = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
            let (model, bundle) = (of("gen_ai.request.model"), of("recurve.bundle.digest"));
            match served.last_mut() {
                Some(last)
                    if last.model == model
                        && last.bundle == bundle
                        && when.begin.saturating_sub(last.ended).saturating_abs() <= 2 * steps.step =>
                {
                    last.ended = when.ended;
                }
                _ => served.push(Served {
                    model: model.to_owned(),
                    bundle: bundle.to_owned(),
                    begin: when.begin.max(steps.begin),
                    ended: when.ended,
                }),
            }
        })?;
        served.sort_by_key(|served| served.begin);
        lines.models = served;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{self, BEGIN, TOKENS, answer, hour, minute};

    #[test]
    fn steps_suit_the_window() {
        for (minutes, step) in [(10, MINUTE), (360, MINUTE), (361, 5 * MINUTE), (5760, 5 * MINUTE), (5761, HOUR)] {
            let steps = Steps::of(BEGIN, BEGIN + minutes * MINUTE);
            assert_eq!(steps.step, step, "{minutes}");
            assert!(steps.end() >= BEGIN + minutes * MINUTE && steps.end() < BEGIN + minutes * MINUTE + step);
        }
        assert_eq!(Steps::of(BEGIN, BEGIN).count, 1);
    }

    #[test]
    fn an_hour_is_spread_over_its_minutes_and_gaps_stay_gaps() {
        let (_folder, mut store) = made::store();
        // Minutes 1 to 60 as an hour, 61 and 62 as they are, 63 is missing.
        store.keep("gw", "a", 0, &answer("a", &[hour(1, 60), minute(61), minute(62), minute(64)])).unwrap();
        let steps = Steps::of(BEGIN, BEGIN + 65 * MINUTE);
        let lines = store.lines(store.histories().unwrap()[0].id, &steps).unwrap();
        for (step, tokens) in lines.tokens.iter().enumerate() {
            match (step, tokens) {
                (62 | 64, value) => assert_eq!(*value, None, "{step}"),
                (_, value) => assert!((value.unwrap() - TOKENS / 60.0).abs() < 1e-9, "{step} {value:?}"),
            }
        }
        assert_eq!(lines.temperature[0], Some(45.3));
        let mut fleet = Lines::default();
        fleet.add(&lines);
        fleet.add(&lines);
        assert!((fleet.tokens[3].unwrap() - 2.0 * TOKENS / 60.0).abs() < 1e-9);
        let bounds = store.latency_bounds().unwrap();
        let median = fleet.percentiles(&steps, &bounds).first_token[0][61].unwrap();
        assert!((0.25..=0.5).contains(&median), "{median}");
    }
}
