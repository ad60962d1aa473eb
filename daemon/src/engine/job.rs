//! What the engine is asked to do, and what it answers. Everything here is validated: the engine checks none of it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::sample::Sampling;

/// A request on its way through the engine.
#[derive(Debug, Clone)]
pub struct Job {
    /// UUIDv7, in logs and in the last message of the stream.
    pub id: Uuid,
    /// What is to be done.
    pub work: Work,
    /// Whose request it is: the queue is fair between clients.
    pub client: ClientId,
    /// Which queue it waits in.
    pub priority: Priority,
    /// When the request was accepted: all timings count from here.
    pub accepted: Instant,
    /// When its caller no longer wants it.
    pub deadline: Option<Instant>,
}

/// What a job is to do.
#[derive(Debug, Clone)]
pub enum Work {
    /// Continue a prompt.
    Generate(Generation),
    /// The log-probability of each of these tokens after the ones before it: at least one token, each below the
    /// vocabulary size.
    Score(Vec<u32>),
}

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Generation {
    /// At least one token, each below the vocabulary size.
    pub prompt: Vec<u32>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Most tokens to generate; 0 only reads the prompt.
    pub max_tokens: u32,
    /// Generation ends before the first of these; none is empty. Needs a tokenizer.
    pub stop: Vec<String>,
    /// Tokens that end the text; empty where the request ignores them.
    pub ends: Arc<[u32]>,
    /// How many of the most probable tokens to tell with each one; `None` tells no log-probabilities at all.
    pub top_logprobs: Option<usize>,
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub Arc<str>);

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// Served when no interactive job waits.
    Background,
}

/// What the engine tells while it works. The last event of every job is `Finished`, `Scored` or `Failed`.
#[derive(Debug)]
pub enum Event {
    /// New tokens, and the text that they decided.
    Delta(Delta),
    /// The end of a generation.
    Finished(Finished),
    /// The end of a scoring.
    Scored(Scored),
    /// The end of a job that could not be done.
    Failed(Failure),
}

/// New tokens, and the text that they decided.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Delta {
    /// Whole UTF-8 characters only; may be empty.
    pub text: String,
    /// The tokens since the last delta.
    pub tokens: Vec<u32>,
    /// One for each of `tokens`, where the job asked for them.
    pub logprobs: Vec<TokenLogprobs>,
}

/// Log-probabilities at one position, before penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was chosen.
    pub chosen: (u32, f32),
    /// The most probable tokens, the most probable first.
    pub top: Vec<(u32, f32)>,
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token.
    EndOfText,
    /// This stop string.
    Stop(String),
    /// `max_tokens` were generated.
    MaxTokens,
    /// The daemon is shutting down and the grace period is over.
    Shutdown,
}

/// The end of a generation.
#[derive(Debug)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens read and made.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// The seed that was used.
    pub seed: u64,
}

/// The end of a scoring.
#[derive(Debug)]
pub struct Scored {
    /// One value less than there were tokens.
    pub logprobs: Vec<f32>,
    /// Tokens read.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// Tokens read and made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated, end-of-text included.
    pub completion_tokens: u64,
}

/// Where the time went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// From acceptance until a slot was free.
    pub queue: Duration,
    /// From the slot until the whole prompt was read.
    pub prefill: Duration,
    /// From acceptance until the first token was sampled; zero if none was.
    pub time_to_first_token: Duration,
    /// From the first token until the last.
    pub decode: Duration,
    /// From acceptance until the end.
    pub total: Duration,
}

/// Why a job could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// ONNX Runtime failed at a step.
    #[error("the engine failed at a step: {0}")]
    Engine(String),
    /// The model's logits were not finite.
    #[error(
        "the model gave values that are not finite at position {position}: the bundle is damaged or its weights overflow"
    )]
    NotFinite {
        /// Tokens consumed before the step.
        position: u64,
    },
    /// The request's penalties and biases made values of the model's logits that are not finite.
    #[error(
        "at position {position} the penalties and biases make values of the model's logits that are not finite: choose \
         smaller ones"
    )]
    Adjusted {
        /// Tokens consumed before the step.
        position: u64,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The caller stopped reading while others waited for its slot.
    #[error("nothing was read of the answer for {seconds} s while others waited for its slot")]
    Stalled {
        /// How long.
        seconds: u64,
    },
    /// Another model took the place of the one that the job was made for, before it gave anything.
    #[error("another model was put in place")]
    Replaced,
    /// The daemon stopped before the job got a slot, or while it read its prompt.
    #[error("the daemon is shutting down")]
    Shutdown,
}
