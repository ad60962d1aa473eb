//! A request for text that ended, as the conventions for GenAI describe it.

use std::time::Duration;

use opentelemetry::KeyValue;

use crate::engine::job::{Timings, Usage};

/// Who made the model's kind, as the conventions name it: ours is none of the providers that they list.
const PROVIDER: &str = "recurve";

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `chat` or `text_completion`.
    pub operation: &'static str,
    /// The model that was to answer; none where none was served.
    pub model: Option<&'a str>,
    /// Where the node is reached: a host and a port, or the path of a socket.
    pub server: (&'a str, Option<u16>),
    /// What became of it.
    pub outcome: Outcome,
    /// Tokens read and made.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// How long it waited for a row, or for none until it ended; none where it was not given to the queue.
    pub waited: Option<Duration>,
    /// From acceptance until the end, whatever the end was.
    pub total: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It failed, with this status.
    Failed(&'static str),
}

/// The times that are recorded of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Times {
    pub(super) total: Duration,
    pub(super) queue: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) output_token: Option<Duration>,
}

impl Request<'_> {
    /// What all its series have; the operation is the first.
    pub(super) fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", self.operation),
            KeyValue::new("gen_ai.provider.name", PROVIDER),
        ];
        if let Some(model) = self.model {
            attributes.push(KeyValue::new("gen_ai.request.model", model.to_owned()));
            attributes.push(KeyValue::new("gen_ai.response.model", model.to_owned()));
        }
        attributes.push(KeyValue::new("server.address", self.server.0.to_owned()));
        if let Some(port) = self.server.1 {
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        attributes
    }

    /// `error.type`, where it failed.
    pub(super) fn error(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Answered => None,
            Outcome::Failed(status) => Some(status),
        }
    }

    /// The conventions count the first token and the time per token of successful answers only.
    pub(super) fn times(&self) -> Times {
        let answered = self.outcome == Outcome::Answered;
        let Timings { time_to_first_token, decode, .. } = self.timings;
        let intervals = u32::try_from(self.usage.completion_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        Times {
            total: self.total,
            queue: self.waited,
            first_token: (answered && self.usage.completion_tokens > 0).then_some(time_to_first_token),
            output_token: (answered && intervals > 0).then(|| decode / intervals.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_per_token_leaves_the_first_one_out() {
        let ms = Duration::from_millis;
        let timings = Timings { queue: ms(1), time_to_first_token: ms(50), decode: ms(90), ..Timings::default() };
        let of = |tokens, outcome, waited| {
            let usage = Usage { prompt_tokens: 3, completion_tokens: tokens };
            let server = ("gw", Some(1));
            Request { operation: "chat", model: None, server, outcome, usage, timings, waited, total: ms(140) }.times()
        };
        let whole = of(10, Outcome::Answered, Some(ms(1)));
        assert_eq!((whole.first_token, whole.output_token), (Some(ms(50)), Some(ms(10))));
        assert_eq!(of(1, Outcome::Answered, Some(ms(1))).output_token, None);
        assert_eq!(of(0, Outcome::Answered, Some(ms(1))).first_token, None);
        for waited in [None, Some(ms(90))] {
            let failed = of(10, Outcome::Failed("CANCELLED"), waited);
            assert_eq!(failed, Times { total: ms(140), queue: waited, first_token: None, output_token: None });
        }
    }
}
