//! What the times of many requests come to.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::load::{Load, Measured, Sample};

/// Percentiles of a set of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
}

impl Percentiles {
    /// By the nearest rank: each is one of the values. None where there are no values.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p50: rank(50)?, p90: rank(90)?, p99: rank(99)? })
    }

    fn text(this: Option<Self>) -> String {
        match this {
            Some(Self { p50, p90, p99 }) => format!("{p50:.1} / {p90:.1} / {p99:.1}"),
            None => "-".to_owned(),
        }
    }
}

/// The figures of one prompt length at one concurrency.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    prompt_tokens: u32,
    concurrency: u32,
    requests: usize,
    /// From sending until the first token arrived.
    first_token_ms: Option<Percentiles>,
    /// From one token to the next.
    between_tokens_ms: Option<Percentiles>,
    /// In the daemon's queue.
    queue_ms: Option<Percentiles>,
    /// From the first token to the last of a stream; the mean over streams.
    tokens_per_second_per_stream: Option<f64>,
    /// All tokens over the whole time, reading the prompts included.
    tokens_per_second: f64,
}

impl Figures {
    pub(super) fn new(load: &Load, measured: &Measured) -> Self {
        let samples = &measured.samples;
        let tokens: usize = samples.iter().map(|sample| sample.tokens).sum();
        let rates: Vec<f64> = samples.iter().filter_map(rate).collect();
        Self {
            prompt_tokens: load.prompt_tokens,
            concurrency: load.concurrency,
            requests: samples.len(),
            first_token_ms: Percentiles::of(samples.iter().filter_map(|sample| sample.first_token).map(milliseconds)),
            between_tokens_ms: Percentiles::of(
                samples.iter().flat_map(|sample| &sample.between).copied().map(milliseconds),
            ),
            queue_ms: Percentiles::of(samples.iter().filter_map(|sample| sample.queue_ms)),
            tokens_per_second_per_stream: (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64),
            tokens_per_second: tokens as f64 / measured.wall.as_secs_f64(),
        }
    }
}

/// Tokens a second after the first token; none where there was no second one.
fn rate(sample: &Sample) -> Option<f64> {
    let time: Duration = sample.between.iter().sum();
    (!time.is_zero()).then(|| sample.between.len() as f64 / time.as_secs_f64())
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// One row for each pair of prompt length and concurrency.
pub(super) fn table(results: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "prompt\ntokens",
        "streams",
        "first token, ms\np50 / p90 / p99",
        "between tokens, ms\np50 / p90 / p99",
        "in the queue, ms\np50 / p90 / p99",
        "tokens/s\na stream",
        "tokens/s\nin total",
    ]);
    for figures in results {
        let stream = figures.tokens_per_second_per_stream;
        table.add_row([
            figures.prompt_tokens.to_string(),
            figures.concurrency.to_string(),
            Percentiles::text(figures.first_token_ms),
            Percentiles::text(figures.between_tokens_ms),
            Percentiles::text(figures.queue_ms),
            stream.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
            format!("{:.1}", figures.tokens_per_second),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let of = |values: &[f64]| Percentiles::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(Percentiles { p50: 3.0, p90: 3.0, p99: 3.0 }));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some(Percentiles { p50: 50.0, p90: 90.0, p99: 99.0 }));
        assert_eq!(of(&[1.0, 2.0]), Some(Percentiles { p50: 1.0, p90: 2.0, p99: 2.0 }));
    }

    #[test]
    fn figures_count_what_arrived() {
        let load = Load { prompt_tokens: 16, concurrency: 2, requests: 2, max_tokens: 3 };
        let ms = Duration::from_millis;
        let sample =
            Sample { first_token: Some(ms(20)), between: vec![ms(10), ms(10)], tokens: 3, queue_ms: Some(0.5) };
        let measured = Measured { samples: vec![sample; 2], wall: ms(40) };
        let figures = Figures::new(&load, &measured);
        assert_eq!(figures.requests, 2);
        assert_eq!(figures.tokens_per_second_per_stream, Some(100.0));
        assert_eq!(figures.tokens_per_second, 150.0);
        let text = table(&[figures]);
        assert!(text.contains("20.0 / 20.0 / 20.0"), "{text}");
        assert!(text.contains("100.0"), "{text}");
    }

    #[test]
    fn a_single_token_has_no_rate() {
        let sample = Sample { first_token: Some(Duration::from_millis(20)), tokens: 1, ..Sample::default() };
        assert_eq!(rate(&sample), None);
    }
}
