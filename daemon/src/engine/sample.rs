//! How the next token is chosen: penalties, bias, temperature, top-k, top-p, min-p, in this order, and a random number that
//! depends on the seed and the token's index alone.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use recurve_bundle::REPETITION_PENALTY;

use super::draw::{draw, first_of, largest, log_sum_exp, most_probable};
use super::job::TokenLogprobs;

/// How many of the last tokens the penalties look at: a session stays of constant size.
pub const PENALTY_WINDOW: usize = 1024;

/// How the next token is chosen. Every value has been checked.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// Only the k most probable tokens; 0: all.
    pub top_k: u32,
    /// Only the most probable tokens whose probabilities sum up to this; 1: all.
    pub top_p: f32,
    /// Only tokens at least this fraction as probable as the most probable one; 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen; 1: none.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token seen.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it was seen.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// Allowed values. Within them, finite logits up to 1e35 stay finite, and far more than a model's soft cap of 30 lets through.
impl Sampling {
    /// Of `temperature`.
    pub const TEMPERATURE: RangeInclusive<f32> = 0.0..=100.0;
    /// Of `min_p`.
    pub const MIN_P: RangeInclusive<f32> = 0.0..=1.0;
    /// Of `repetition_penalty`.
    pub const REPETITION_PENALTY: RangeInclusive<f32> = REPETITION_PENALTY;
    /// Of `presence_penalty` and `frequency_penalty`.
    pub const PENALTY: RangeInclusive<f32> = -100.0..=100.0;
    /// Of an entry of `logit_bias`.
    pub const LOGIT_BIAS: RangeInclusive<f32> = -1000.0..=1000.0;

    fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// The chosen token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub(super) token: u32,
    /// Where the job asked for it.
    pub(super) logprobs: Option<TokenLogprobs>,
}

/// Why no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFinite {
    /// A logit of the model is not finite.
    Model,
    /// The model's logits are finite, but not after the request's penalties and biases.
    Adjusted,
}

/// Chooses the tokens of one job.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    top_logprobs: Option<usize>,
    /// Tokens chosen so far.
    index: u64,
    seen: Seen,
    /// The logits as the model gave them, where their probabilities are told.
    raw: Vec<f32>,
}

/// The last tokens, and how often each is among them.
#[derive(Debug, Default)]
struct Seen {
    last: VecDeque<u32>,
    counts: HashMap<u32, u32>,
}

impl Seen {
    fn push(&mut self, token: u32) {
        if self.last.len() == PENALTY_WINDOW
            && let Some(oldest) = self.last.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.last.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}

impl Sampler {
    /// The penalties also look at the end of the prompt.
    pub(super) fn new(sampling: Sampling, top_logprobs: Option<usize>, prompt: &[u32]) -> Self {
        let mut seen = Seen::default();
        if sampling.penalizes() {
            prompt[prompt.len().saturating_sub(PENALTY_WINDOW)..].iter().for_each(|&token| seen.push(token));
        }
        Self { sampling, top_logprobs, index: 0, seen, raw: Vec::new() }
    }

    /// The seed of this job.
    pub(super) fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Chooses a token from `logits [vocab]`, which are overwritten.
    ///
    /// # Errors
    /// A logit is not finite, before or after the adjustments.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, NotFinite> {
        let most = largest(logits).ok_or(NotFinite::Model)?;
        // Told before anything is changed.
        let told = self.top_logprobs.map(|top| Told::new(logits, most, top, &mut self.raw));
        let most = match self.adjust(logits) {
            true => largest(logits).ok_or(NotFinite::Adjusted)?,
            false => most,
        };
        let token = match self.sampling.temperature {
            0.0 => first_of(logits, most),
            _ => draw(&self.sampling, most, logits, uniform(self.sampling.seed, self.index)),
        };
        self.index += 1;
        if self.sampling.penalizes() {
            self.seen.push(token);
        }
        Ok(Choice { token, logprobs: told.map(|told| told.of(token, &self.raw)) })
    }

    /// Penalties and bias; whether there are any.
    fn adjust(&self, logits: &mut [f32]) -> bool {
        let sampling = &self.sampling;
        for (&token, &count) in &self.seen.counts {
            let logit = &mut logits[token as usize];
            *logit = match *logit > 0.0 {
                true => *logit / sampling.repetition_penalty,
                false => *logit * sampling.repetition_penalty,
            };
            *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
        }
        for &(token, bias) in &sampling.logit_bias {
            logits[token as usize] += bias;
        }
        !self.seen.counts.is_empty() || !sampling.logit_bias.is_empty()
    }
}

/// What is told of a token's probability, before the token is known.
struct Told {
    /// The logarithm of the sum of all exponentials.
    normalizer: f64,
    top: Vec<(u32, f32)>,
}

impl Told {
    /// `raw` becomes a copy of the logits.
    fn new(logits: &[f32], most: f32, top: usize, raw: &mut Vec<f32>) -> Self {
        raw.clear();
        raw.extend_from_slice(logits);
        Self { normalizer: log_sum_exp(logits, most), top: most_probable(logits, top) }
    }

    fn of(self, token: u32, raw: &[f32]) -> TokenLogprobs {
        let logprob = |(token, logit): (u32, f32)| (token, (f64::from(logit) - self.normalizer) as f32);
        TokenLogprobs {
            chosen: logprob((token, raw[token as usize])),
            top: self.top.into_iter().map(logprob).collect(),
        }
    }
}

/// The random number in [0, 1) of a seed's token: counter-based, so that nothing has to be carried along.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    // Words of 32 bits; each number takes two.
    generator.set_word_pos(2 * u128::from(index));
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
