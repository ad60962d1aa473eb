//! How the next token is chosen: penalties, bias, temperature, top-k, top-p, min-p, and a random number that depends on
//! the seed and the token's index alone.

use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

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

impl Sampling {
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

/// Logits that no token can be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFinite;

/// Chooses the tokens of one job.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    top_logprobs: Option<usize>,
    /// Tokens chosen so far.
    index: u64,
    seen: Seen,
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
        Self { sampling, top_logprobs, index: 0, seen }
    }

    /// The seed of this job.
    pub(super) fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Chooses a token from `logits [vocab]`, which are overwritten.
    ///
    /// # Errors
    /// A logit is not finite.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, NotFinite> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(NotFinite);
        }
        // Told before anything is changed.
        let normalizer = self.top_logprobs.map(|top| (log_sum_exp(logits), most_probable(logits, top)));
        let raw: Vec<f32> = match &normalizer {
            Some(_) => logits.to_vec(),
            None => Vec::new(),
        };
        self.adjust(logits);
        let token = match self.sampling.temperature {
            0.0 => argmax(logits),
            temperature => self.draw(logits, temperature),
        };
        self.index += 1;
        if self.sampling.penalizes() {
            self.seen.push(token);
        }
        let logprobs = normalizer.map(|(normalizer, top)| TokenLogprobs {
            chosen: (token, (f64::from(raw[token as usize]) - normalizer) as f32),
            top: top.into_iter().map(|(token, logit)| (token, (f64::from(logit) - normalizer) as f32)).collect(),
        });
        Ok(Choice { token, logprobs })
    }

    /// Penalties and bias.
    fn adjust(&self, logits: &mut [f32]) {
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
    }

    /// Draws a token: weights relative to the most probable one, cut by top-k, top-p and min-p in this order.
    fn draw(&self, logits: &[f32], temperature: f32) -> u32 {
        let sampling = &self.sampling;
        let likeliest = argmax(logits);
        let most = f64::from(logits[likeliest as usize]);
        let weights: Vec<f64> =
            logits.iter().map(|&logit| ((f64::from(logit) - most) / f64::from(temperature)).exp()).collect();
        let lightest = lightest_kept(&weights, sampling.top_k as usize, f64::from(sampling.top_p));
        // The most probable token has weight 1: min-p always keeps it.
        let kept = |&(token, weight): &(u32, f64)| {
            weight >= f64::from(sampling.min_p)
                && lightest.is_none_or(|lightest| !heavier(&lightest, &(token, weight)).is_lt())
        };
        // In the order of the tokens, however they were cut.
        let candidates = || (0..).zip(weights.iter().copied()).filter(kept);
        let total: f64 = candidates().map(|(_, weight)| weight).sum();
        let mut left = uniform(sampling.seed, self.index) * total;
        let mut chosen = likeliest;
        for (token, weight) in candidates().filter(|&(_, weight)| weight > 0.0) {
            chosen = token;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        chosen
    }
}

/// By falling weight; equal ones by token, so that the order is the same everywhere.
fn heavier(a: &(u32, f64), b: &(u32, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The last of the heaviest tokens that top-k and top-p keep; none where both keep all.
fn lightest_kept(weights: &[f64], top_k: usize, top_p: f64) -> Option<(u32, f64)> {
    let cuts_to_k = top_k > 0 && top_k < weights.len();
    if !cuts_to_k && top_p >= 1.0 {
        return None;
    }
    let mut candidates: Vec<(u32, f64)> = (0..).zip(weights.iter().copied()).collect();
    if cuts_to_k {
        candidates.select_nth_unstable_by(top_k - 1, heavier);
        candidates.truncate(top_k);
    }
    if top_p < 1.0 {
        cut_to_share(&mut candidates, top_p);
    }
    candidates.into_iter().max_by(heavier)
}

/// Keeps the heaviest candidates whose weights sum up to this share of all; at least one. Halves what is undecided until
/// little is left, so that a large vocabulary is never sorted.
fn cut_to_share(candidates: &mut Vec<(u32, f64)>, share: f64) {
    /// Few enough to sort.
    const FEW: usize = 64;
    let mut wanted = share * candidates.iter().map(|&(_, weight)| weight).sum::<f64>();
    // Candidates before `low` are kept, those from `high` on are not.
    let (mut low, mut high) = (0, candidates.len());
    while high - low > FEW {
        let half = (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(half, heavier);
        let sum: f64 = candidates[low..low + half].iter().map(|&(_, weight)| weight).sum();
        if sum >= wanted {
            high = low + half;
        } else {
            wanted -= sum;
            low += half;
        }
    }
    candidates[low..high].sort_unstable_by(heavier);
    while low < high && (low == 0 || wanted > 0.0) {
        wanted -= candidates[low].1;
        low += 1;
    }
    candidates.truncate(low);
}

/// The random number in [0, 1) of a seed's token: counter-based, so that nothing has to be carried along.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    // Words of 32 bits; each number takes two.
    generator.set_word_pos(2 * u128::from(index));
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.0 {
            best = (logit, token);
        }
    }
    best.1
}

/// `ln Σ e^x`.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum::<f64>().ln()
}

/// The tokens with the largest logits, the largest first.
fn most_probable(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let count = count.min(all.len());
    if count > 0 && count < all.len() {
        all.select_nth_unstable_by(count - 1, order);
    }
    all.truncate(count);
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests;
