//! What answers tell beside their text, in the shapes that JSON output and `--stats` have in common.

use recurve_proto::v1;
use serde::Serialize;

/// Tokens that were read and made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl From<v1::Usage> for Usage {
    fn from(usage: v1::Usage) -> Self {
        Self { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens }
    }
}

/// The daemon's own times, in milliseconds. A time that does not apply is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Timings {
    queue_ms: Option<f64>,
    prefill_ms: Option<f64>,
    time_to_first_token_ms: Option<f64>,
    decode_ms: Option<f64>,
    total_ms: Option<f64>,
}

impl From<v1::Timings> for Timings {
    fn from(timings: v1::Timings) -> Self {
        Self {
            queue_ms: timings.queue.map(milliseconds),
            prefill_ms: timings.prefill.map(milliseconds),
            time_to_first_token_ms: timings.time_to_first_token.map(milliseconds),
            decode_ms: timings.decode.map(milliseconds),
            total_ms: timings.total.map(milliseconds),
        }
    }
}

/// A duration in milliseconds, to the microsecond.
pub(crate) fn milliseconds(duration: prost_types::Duration) -> f64 {
    let microseconds = duration.seconds as f64 * 1e6 + (f64::from(duration.nanos) / 1e3).round();
    microseconds / 1e3
}

/// The name of a finish reason in JSON output.
pub(crate) fn finish_reason(finish: &v1::Finish) -> &'static str {
    match finish.reason() {
        v1::FinishReason::EndOfText => "end_of_text",
        v1::FinishReason::Stop => "stop",
        v1::FinishReason::MaxTokens => "max_tokens",
        v1::FinishReason::Shutdown => "shutdown",
        v1::FinishReason::Unspecified => "unspecified",
    }
}

/// The end of an answer in one line, for `--stats`.
pub(crate) fn stats(finish: &v1::Finish) -> String {
    let usage = finish.usage.unwrap_or_default();
    let timings = finish.timings.map(Timings::from).unwrap_or_default();
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let rate = match timings.decode_ms {
        Some(decode) if decode > 0.0 && usage.completion_tokens > 1 => {
            format!(" ({:.1} tokens/s)", (usage.completion_tokens - 1) as f64 * 1e3 / decode)
        }
        _ => String::new(),
    };
    format!(
        "{} + {} tokens, {}; queue {}, prefill {}, first token {}, decode {}{rate}, total {}; seed {}; {} {}; request {}",
        usage.prompt_tokens,
        usage.completion_tokens,
        finish_reason(finish),
        ms(timings.queue_ms),
        ms(timings.prefill_ms),
        ms(timings.time_to_first_token_ms),
        ms(timings.decode_ms),
        ms(timings.total_ms),
        finish.seed,
        finish.model,
        finish.bundle,
        finish.request_id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds_to_the_microsecond() {
        let ms = |seconds, nanos| milliseconds(prost_types::Duration { seconds, nanos });
        assert_eq!(ms(0, 0), 0.0);
        assert_eq!(ms(0, 1_499), 0.001);
        assert_eq!(ms(0, 12_345_678), 12.346);
        assert_eq!(ms(3, 5_000_000), 3005.0);
    }

    #[test]
    fn the_line_of_stats_leaves_out_what_does_not_apply() {
        let mut finish = v1::Finish {
            usage: Some(v1::Usage { prompt_tokens: 7, completion_tokens: 5 }),
            timings: Some(v1::Timings {
                decode: Some(prost_types::Duration { seconds: 0, nanos: 40_000_000 }),
                ..Default::default()
            }),
            seed: 3,
            ..Default::default()
        };
        finish.set_reason(v1::FinishReason::EndOfText);
        let line = stats(&finish);
        assert!(line.starts_with("7 + 5 tokens, end_of_text; queue -,"), "{line}");
        assert!(line.contains("decode 40.0 ms (100.0 tokens/s)"), "{line}");
        finish.usage = None;
        assert!(!stats(&finish).contains("tokens/s"));
    }
}
