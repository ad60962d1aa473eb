//! Requests as they come from the wire, made into values that cannot be wrong. All that is wrong with a request is
//! told at once.

mod long;
mod prompt;
mod sampling;
mod violations;

use std::sync::Arc;

use recurve_proto::v1;

pub use prompt::Prompt;
pub use violations::{RequestError, Violation};

use crate::engine::job::{Generation, Priority};
use crate::engine::sample::Sampling;
use crate::model::Model;
use long::LONG_TEXTS;
use violations::Violations;

/// Most stop strings, and most bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_TOP_LOGPROBS: u32 = 20;
/// Up to this many tokens are detokenized where the request is read.
const INLINE_TOKENS: usize = 512;
/// Bytes of text that a token becomes, roughly: so much of [`LONG_TEXTS`] it takes.
const BYTES_PER_TOKEN: usize = 4;

/// A valid request to continue a prompt.
#[derive(Debug)]
pub struct Generate {
    /// What to continue.
    pub prompt: Prompt,
    /// Which queue it waits in.
    pub priority: Priority,
    sampling: Sampling,
    max_tokens: u32,
    stop: Vec<String>,
    ends: Arc<[u32]>,
    top_logprobs: Option<usize>,
}

impl Generate {
    /// Checks a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(wire: v1::GenerateRequest, model: &Model) -> Result<Self, RequestError> {
        let mut violations = Violations::default();
        let prompt = prompt::generate(wire.prompt, wire.read_control_tokens, model, &mut violations);
        let sampling = sampling::parse(wire.sampling.unwrap_or_default(), model, &mut violations);
        let max_tokens = max_tokens(wire.max_tokens, model, &mut violations);
        let stop = stops(wire.stop, &mut violations);
        if let Some(n) = wire.top_logprobs
            && n > MAX_TOP_LOGPROBS
        {
            violations.add("top_logprobs", format!("{n} is not allowed: 0 to {MAX_TOP_LOGPROBS}"));
        }
        let priority = priority(wire.priority, &mut violations);
        violations.none()?;
        let prompt = prompt.ok_or_else(|| RequestError::missing("prompt"))?;
        prompt.needs(model)?;
        if !stop.is_empty() && model.tokenizer.is_none() {
            return Err(RequestError::NoTokenizer);
        }
        Ok(Self {
            prompt,
            priority,
            sampling,
            max_tokens,
            stop,
            ends: if wire.ignore_eos { Arc::from([]) } else { Arc::clone(&model.ends) },
            top_logprobs: wire.top_logprobs.and_then(|n| usize::try_from(n).ok()),
        })
    }

    /// Takes the tokens of the prompt and makes the engine's work of it all.
    ///
    /// # Errors
    /// As [`Prompt::tokens`].
    pub async fn tokenized(self, model: &Arc<Model>) -> Result<Generation, RequestError> {
        let prompt = self.prompt.tokens(model, model.limits.max_prompt_tokens).await?;
        Ok(Generation {
            prompt,
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            stop: self.stop,
            ends: self.ends,
            top_logprobs: self.top_logprobs,
        })
    }
}

/// A valid request to score tokens.
#[derive(Debug)]
pub struct Score {
    /// What to score.
    pub input: Prompt,
    /// Which queue it waits in.
    pub priority: Priority,
}

impl Score {
    /// Checks a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(wire: v1::ScoreRequest, model: &Model) -> Result<Self, RequestError> {
        let mut violations = Violations::default();
        let input = prompt::score(wire.input, wire.read_control_tokens, model, &mut violations);
        let priority = priority(wire.priority, &mut violations);
        violations.none()?;
        let input = input.ok_or_else(|| RequestError::missing("input"))?;
        input.needs(model)?;
        Ok(Self { input, priority })
    }
}

/// A valid request to tokenize.
#[derive(Debug)]
pub struct Tokenize {
    /// What to tokenize.
    input: Prompt,
}

impl Tokenize {
    /// Checks a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(wire: v1::TokenizeRequest, model: &Model) -> Result<Self, RequestError> {
        let mut violations = Violations::default();
        let input =
            prompt::tokenize(wire.input, wire.no_special_tokens, wire.read_control_tokens, model, &mut violations);
        violations.none()?;
        let input = input.ok_or_else(|| RequestError::missing("input"))?;
        input.needs(model)?;
        Ok(Self { input })
    }

    /// The token ids, at most as many as a prompt may have, and how each is written in the vocabulary.
    ///
    /// # Errors
    /// As [`Prompt::pieces`].
    pub async fn pieces(self, model: &Arc<Model>) -> Result<(Vec<u32>, Vec<String>), RequestError> {
        self.input.pieces(model, model.limits.max_prompt_tokens).await
    }
}

/// A valid request to detokenize.
#[derive(Debug)]
pub struct Detokenize {
    /// Ids below the vocabulary size.
    pub tokens: Vec<u32>,
    /// Whether special tokens are written out.
    pub keep_special_tokens: bool,
}

impl Detokenize {
    /// Checks a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(wire: v1::DetokenizeRequest, model: &Model) -> Result<Self, RequestError> {
        let mut violations = Violations::default();
        let (count, most) = (wire.tokens.len(), model.limits.max_prompt_tokens.saturating_add(model.limits.max_tokens));
        if count > most {
            let limits = "limits.max_prompt_tokens and limits.max_tokens together";
            violations.add("tokens", format!("has {count} tokens, this node takes at most {most} ({limits})"));
        }
        prompt::check_ids("tokens", &wire.tokens, model.vocab_size, &mut violations);
        violations.none()?;
        if model.tokenizer.is_none() {
            return Err(RequestError::NoTokenizer);
        }
        Ok(Self { tokens: wire.tokens, keep_special_tokens: wire.keep_special_tokens })
    }

    /// The text of the tokens.
    ///
    /// # Errors
    /// The tokenizer failed, or too many long texts wait.
    pub async fn text(self, model: &Model) -> Result<String, RequestError> {
        let tokenizer = Arc::clone(model.tokenizer.as_ref().ok_or(RequestError::NoTokenizer)?);
        let tokens = self.tokens.len();
        let decode = move || match self.keep_special_tokens {
            true => tokenizer.decode_with_special(&self.tokens),
            false => tokenizer.decode(&self.tokens),
        };
        if tokens > INLINE_TOKENS { LONG_TEXTS.run(tokens * BYTES_PER_TOKEN, decode).await } else { Ok(decode()) }
    }
}

fn max_tokens(wire: Option<u32>, model: &Model, violations: &mut Violations) -> u32 {
    let most = u32::try_from(model.limits.max_tokens).unwrap_or(u32::MAX);
    match wire {
        None => model.defaults.max_tokens.min(most),
        Some(n) if n <= most => n,
        Some(n) => {
            violations.add(
                "max_tokens",
                format!("{n} is not allowed: this node generates at most {most} (limits.max_tokens)"),
            );
            0
        }
    }
}

fn stops(wire: Vec<String>, violations: &mut Violations) -> Vec<String> {
    if wire.len() > MAX_STOPS {
        violations.add("stop", format!("{} strings are not allowed: at most {MAX_STOPS}", wire.len()));
        return Vec::new();
    }
    for (index, stop) in wire.iter().enumerate() {
        if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
            violations
                .add(format!("stop[{index}]"), format!("has {} bytes, allowed are 1 to {MAX_STOP_BYTES}", stop.len()));
        }
    }
    wire
}

fn priority(wire: i32, violations: &mut Violations) -> Priority {
    match v1::Priority::try_from(wire) {
        Ok(v1::Priority::Unspecified | v1::Priority::Interactive) => Priority::Interactive,
        Ok(v1::Priority::Background) => Priority::Background,
        Err(_) => {
            violations
                .add("priority", format!("{wire} is not known: PRIORITY_INTERACTIVE (1) or PRIORITY_BACKGROUND (2)"));
            Priority::Interactive
        }
    }
}

#[cfg(test)]
mod tests;
