//! What a device's counters and histograms grew by lately: they count from the start of its daemon.

use std::collections::VecDeque;
use std::time::Duration;

use recurve_proto::v1::{Histogram, WatchNodeResponse};
use recurve_telemetry::{catalogue, histogram};

/// Percentiles are those of so long.
pub(crate) const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Readings that are kept for the window lie at least so far apart.
const APART: Duration = Duration::from_secs(2);
/// Tokens a second are the mean over so long.
const RECENT: Duration = Duration::from_secs(5);

/// What counts up, at a moment. Moments are told by a clock of this program that does not jump, and that starts at
/// [`WINDOW`], so that there is a time before it.
#[derive(Debug, Clone, Default)]
struct Reading {
    at: Duration,
    tokens_out: u64,
    requests: u64,
    errors: u64,
    first: Histogram,
    each: Histogram,
}

/// The readings of a daemon's present life.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    instance: String,
    /// Of the last seconds.
    recent: VecDeque<(Duration, u64, u64)>,
    /// Of the window, and the last one before it.
    kept: VecDeque<Reading>,
    now: Reading,
}

/// What happened within the window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// Requests that ended, and those of them that failed.
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Times to the first token, and between two tokens.
    pub(crate) first: Histogram,
    pub(crate) each: Histogram,
}

/// A stretch of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    /// Tokens that were made a second; none where nothing is known.
    pub(crate) tokens: Option<f64>,
    /// The median time to the first token; none where there was no answer.
    pub(crate) first: Option<f64>,
}

impl Rates {
    /// Takes what a daemon told at a moment.
    pub(crate) fn take(&mut self, at: Duration, told: &WatchNodeResponse) {
        let state = told.state.as_ref();
        let instance = state.map(|state| state.instance.clone()).unwrap_or_default();
        let now = Reading {
            at,
            tokens_out: told.tokens_out,
            requests: told.requests,
            errors: told.errors,
            first: told.time_to_first_token.clone().unwrap_or_default(),
            each: told.time_per_output_token.clone().unwrap_or_default(),
        };
        if self.kept.is_empty() || self.instance != instance {
            let uptime = state.and_then(|state| state.uptime).and_then(|uptime| Duration::try_from(uptime).ok());
            // One that is young had counted nothing when it started, which is within the window.
            let young = uptime.filter(|uptime| *uptime < WINDOW);
            let start = young.map(|uptime| Reading { at: at.saturating_sub(uptime), ..Reading::default() });
            *self = Self { instance, kept: VecDeque::from([start.unwrap_or_else(|| now.clone())]), ..Self::default() };
        }
        self.recent.push_back((at, told.tokens_in, told.tokens_out));
        while self.recent.len() > 2 && self.recent.get(1).is_some_and(|(then, ..)| *then + RECENT <= at) {
            self.recent.pop_front();
        }
        if self.kept.back().is_none_or(|last| last.at + APART <= at) {
            self.kept.push_back(now.clone());
        }
        while self.kept.get(1).is_some_and(|second| second.at + WINDOW <= at) {
            self.kept.pop_front();
        }
        self.now = now;
    }

    /// Tokens read and made a second; none before the second reading.
    pub(crate) fn tokens(&self) -> Option<(f64, f64)> {
        let (first, last) = self.recent.front().zip(self.recent.back())?;
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        let rate = |first: u64, last: u64| last.saturating_sub(first) as f64 / seconds;
        (seconds > 0.0).then(|| (rate(first.1, last.1), rate(first.2, last.2)))
    }

    /// What happened within the window.
    pub(crate) fn window(&self) -> Window {
        let Some(before) = self.kept.front() else { return Window::default() };
        self.between(before)
    }

    /// What happened since the daemon started.
    pub(crate) fn life(&self) -> Window {
        self.between(&Reading::default())
    }

    fn between(&self, before: &Reading) -> Window {
        Window {
            requests: self.now.requests.saturating_sub(before.requests),
            errors: self.now.errors.saturating_sub(before.errors),
            first: histogram::since(&self.now.first, &before.first),
            each: histogram::since(&self.now.each, &before.each),
        }
    }

    /// The window in so many stretches of the same length, the newest one last.
    pub(crate) fn bars(&self, count: usize) -> Vec<Bar> {
        let step = WINDOW.as_secs_f64() / count.max(1) as f64;
        let mut later = Some(&self.now).filter(|_| !self.kept.is_empty());
        let mut bars: Vec<Bar> = (1..=count)
            .map(|back| {
                let begin = self.now.at.saturating_sub(Duration::from_secs_f64(step * back as f64));
                let after = self.kept.partition_point(|reading| reading.at <= begin);
                let before = after.checked_sub(1).and_then(|place| self.kept.get(place));
                let bar = bar(before, later);
                later = before;
                bar
            })
            .collect();
        bars.reverse();
        bars
    }
}

fn bar(before: Option<&Reading>, after: Option<&Reading>) -> Bar {
    let Some((before, after)) = before.zip(after) else { return Bar { tokens: None, first: None } };
    let seconds = after.at.saturating_sub(before.at).as_secs_f64();
    let made = after.tokens_out.saturating_sub(before.tokens_out) as f64;
    Bar {
        tokens: (seconds > 0.0).then(|| made / seconds),
        first: first_token(&histogram::since(&after.first, &before.first), 0.5),
    }
}

/// A quantile of times to the first token, in seconds.
pub(crate) fn first_token(of: &Histogram, q: f64) -> Option<f64> {
    quantile(catalogue::name::TIME_TO_FIRST_TOKEN, of, q)
}

/// A quantile of times between two tokens, in seconds.
pub(crate) fn each_token(of: &Histogram, q: f64) -> Option<f64> {
    quantile(catalogue::name::TIME_PER_OUTPUT_TOKEN, of, q)
}

fn quantile(metric: &str, of: &Histogram, q: f64) -> Option<f64> {
    let bounds = catalogue::find(metric).map_or(&[][..], catalogue::Metric::bounds);
    histogram::quantile(of, bounds, q).map(|quantile| quantile.value)
}

#[cfg(test)]
mod tests {
    use recurve_proto::v1::NodeState;

    use super::*;

    fn told(instance: &str, uptime: u64, tokens: u64, firsts: &[u64]) -> WatchNodeResponse {
        let uptime = Duration::from_secs(uptime).try_into().ok();
        WatchNodeResponse {
            state: Some(NodeState { instance: instance.to_owned(), uptime, ..NodeState::default() }),
            tokens_out: tokens,
            requests: firsts.iter().sum(),
            time_to_first_token: Some(Histogram { counts: firsts.to_vec(), sum: 0.0 }),
            ..WatchNodeResponse::default()
        }
    }

    fn at(seconds: u64) -> Duration {
        WINDOW + Duration::from_secs(seconds)
    }

    #[test]
    fn tokens_a_second_are_the_mean_of_the_last_seconds() {
        let mut rates = Rates::default();
        rates.take(at(0), &told("a", 1000, 500, &[]));
        assert_eq!(rates.tokens(), None);
        for second in 1..=30 {
            rates.take(at(second), &told("a", 1000, 500 + second.min(10) * 20, &[]));
            if second == 10 {
                assert_eq!(rates.tokens(), Some((0.0, 20.0)));
            }
        }
        assert_eq!(rates.tokens(), Some((0.0, 0.0)));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut rates = Rates::default();
        // Seven answers before this program looked; then one a second for ten minutes.
        for second in 0..=600 {
            rates.take(at(second), &told("a", 10_000 + second, 0, &[7 + second]));
        }
        let count = rates.window().requests;
        assert!((300..=302).contains(&count), "{count}");
        assert_eq!(rates.life().requests, 607);
        assert!(rates.kept.len() <= 152, "{}", rates.kept.len());
    }

    #[test]
    fn a_young_daemon_is_known_from_its_start_and_a_new_life_begins_anew() {
        let mut rates = Rates::default();
        rates.take(at(0), &told("a", 100, 900, &[3, 1]));
        assert_eq!(rates.window().first.counts, [3, 1]);
        rates.take(at(10), &told("b", 2, 40, &[0, 2]));
        assert_eq!(rates.window().first.counts, [0, 2]);
        assert_eq!(rates.tokens(), None);
        rates.take(at(320), &told("b", 312, 40, &[1, 2]));
        assert_eq!(rates.window().first.counts, [1]);
    }

    #[test]
    fn bars_show_what_was_when() {
        let mut rates = Rates::default();
        assert_eq!(rates.bars(2), [Bar { tokens: None, first: None }; 2]);
        for second in 0..=60 {
            let made = if second > 30 { 10 * (second - 30) } else { 0 };
            rates.take(at(second), &told("a", 1000, made, &[second / 60]));
        }
        let bars = rates.bars(10);
        assert_eq!(bars[7], Bar { tokens: None, first: None });
        assert_eq!(bars[8], Bar { tokens: Some(0.0), first: None });
        assert_eq!((bars[9].tokens, bars[9].first.is_some()), (Some(10.0), true));
    }
}
