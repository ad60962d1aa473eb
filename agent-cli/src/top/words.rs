//! Figures and texts in few cells.

use std::time::Duration;

use ratatui::text::Span;
use recurve_telemetry::catalogue::{find, name};

/// Nothing is known.
pub(crate) const NONE: &str = "-";

/// A time in at most five cells.
pub(crate) fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => NONE.to_owned(),
        Some(seconds) if seconds < 0.0095 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.9995 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) if seconds < 9.95 => format!("{seconds:.1}s"),
        Some(seconds) if seconds < 999.5 => format!("{seconds:.0}s"),
        Some(seconds) => format!("{:.0}m", seconds / 60.0),
    }
}

/// A quantile of the time to the first token. One in the lowest bucket of the histogram is only known to be below its bound.
pub(crate) fn first_token(seconds: Option<f64>) -> String {
    quantile(name::TIME_TO_FIRST_TOKEN, seconds)
}

/// The same of the time between two tokens.
pub(crate) fn each_token(seconds: Option<f64>) -> String {
    quantile(name::TIME_PER_OUTPUT_TOKEN, seconds)
}

fn quantile(metric: &str, seconds: Option<f64>) -> String {
    match (seconds, find(metric).and_then(|metric| metric.bounds().first())) {
        (Some(seconds), Some(&least)) if seconds <= least => format!("<{:.0}ms", least * 1e3),
        _ => time(seconds),
    }
}

/// A number in at most five cells.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 9.95 => format!("{value:.1}"),
        Some(value) if value < 9999.5 => format!("{value:.0}"),
        Some(value) if value < 999.5e3 => format!("{:.0}k", value / 1e3),
        Some(value) if value < 9.95e6 => format!("{:.1}M", value / 1e6),
        Some(value) if value < 999.5e6 => format!("{:.0}M", value / 1e6),
        Some(value) => format!("{:.0}G", value / 1e9),
    }
}

/// A share of one.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// Degrees.
pub(crate) fn degrees(celsius: Option<f64>) -> String {
    celsius.map_or_else(|| NONE.to_owned(), |celsius| format!("{celsius:.0}°"))
}

/// How long something lasts already.
pub(crate) fn lasting(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", seconds / 60),
        seconds @ 6_000..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// How many cells a text takes.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text in at most so many cells: the end of a longer one gives way to `…`.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += width(character.encode_utf8(&mut [0; 4]));
        if used > most {
            break;
        }
        short.push(character);
    }
    if most > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_are_short_and_say_their_unit() {
        for (seconds, expected) in
            [(0.0042, "4.2ms"), (0.12, "120ms"), (0.9996, "1.0s"), (1.24, "1.2s"), (59.6, "60s"), (1800.0, "30m")]
        {
            assert_eq!(time(Some(seconds)), expected);
        }
        for (value, expected) in
            [(0.0, "0"), (3.12, "3.1"), (120.4, "120"), (9_999.0, "9999"), (12_345.0, "12k"), (3.2e6, "3.2M")]
        {
            assert_eq!(number(Some(value)), expected);
        }
        assert_eq!(lasting(Duration::from_secs(35)), "35 s");
        assert_eq!(lasting(Duration::from_secs(7_200)), "2 h");
    }

    #[test]
    fn what_lies_in_the_lowest_bucket_is_below_its_bound() {
        assert_eq!((each_token(Some(0.004)), each_token(Some(0.01))), ("<10ms".to_owned(), "<10ms".to_owned()));
        assert_eq!((each_token(Some(0.011)), each_token(None)), ("11ms".to_owned(), "-".to_owned()));
        assert_eq!((first_token(Some(0.0004)), first_token(Some(0.004))), ("<1ms".to_owned(), "4.0ms".to_owned()));
    }

    #[test]
    fn wide_characters_count_as_two() {
        assert_eq!(cut("gateway-north", 8), "gateway…");
        assert_eq!(cut("網關網關", 5), "網關…");
        assert_eq!(cut("網關網關", 4), "網…");
        assert_eq!(cut("gw", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_it_may_be(
            text in ".{0,20}", most in 0_usize..12, value in 0.0_f64..1e11, seconds in 0.0_f64..3e5,
        ) {
            prop_assert!(width(&cut(&text, most)) <= most);
            prop_assert!(number(Some(value)).len() <= 5 && time(Some(seconds)).len() <= 5);
        }
    }
}
