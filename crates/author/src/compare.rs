//! How the model that is stored differs from the one that it was made of: on texts, where the error of a matrix says little.

use recurve_model::{ModelConfig, Weights, WeightsError, reference};
use serde::Serialize;

use crate::sample::Text;

/// What both foresaw, over all tokens of the texts that were to be foreseen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// How many tokens were foreseen.
    pub tokens: u64,
    /// The mean of `Σ p log(p / q)` in nats, p the checkpoint's probabilities in f32 and q those of the stored weights.
    pub mean_kl: f64,
    /// The share of tokens for which both hold the same one to be the likeliest.
    pub top1_agreement: f64,
    /// The exponential of the mean negative log-probability of the texts' tokens, by the checkpoint in f32.
    pub perplexity_f32: f64,
    /// The same, by the stored weights.
    pub perplexity: f64,
}

impl Comparison {
    /// How much more perplexed the stored weights are: 0.01 is one percent.
    pub fn loss(&self) -> f64 {
        self.perplexity / self.perplexity_f32 - 1.0
    }
}

/// Reads the texts with both.
///
/// # Errors
/// Weights cannot be read.
pub(crate) fn compare(
    config: &ModelConfig,
    original: &dyn Weights,
    stored: &dyn Weights,
    texts: &[Text],
) -> Result<Comparison, WeightsError> {
    let mut sums = Sums::default();
    for Text { tokens, foreseen } in texts {
        // The last token is only foreseen; what comes after it is not asked.
        let (before, last) = (&tokens[..tokens.len() - 1], tokens.len() - foreseen);
        let exact = reference::logits(config, original, before, last)?;
        let rounded = reference::logits(config, stored, before, last)?;
        let pairs = exact.chunks_exact(config.vocab_size).zip(rounded.chunks_exact(config.vocab_size));
        for ((exact, rounded), &token) in pairs.zip(&tokens[*foreseen..]) {
            sums.add(exact, rounded, token as usize);
        }
    }
    Ok(sums.comparison())
}

#[derive(Default)]
struct Sums {
    tokens: u64,
    kl: f64,
    agreed: u64,
    exact: f64,
    rounded: f64,
}

impl Sums {
    fn add(&mut self, exact: &[f32], rounded: &[f32], token: usize) {
        let (p, q) = (log_probabilities(exact), log_probabilities(rounded));
        self.tokens += 1;
        self.kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.agreed += u64::from(likeliest(&p) == likeliest(&q));
        self.exact -= p[token];
        self.rounded -= q[token];
    }

    fn comparison(&self) -> Comparison {
        let mean = |sum: f64| sum / self.tokens.max(1) as f64;
        Comparison {
            tokens: self.tokens,
            mean_kl: mean(self.kl),
            top1_agreement: mean(self.agreed as f64),
            perplexity_f32: mean(self.exact).exp(),
            perplexity: mean(self.rounded).exp(),
        }
    }
}

fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|&logit| f64::from(logit) - f64::from(max));
    let total: f64 = shifted.clone().map(f64::exp).sum();
    shifted.map(|logit| logit - total.ln()).collect()
}

/// The first of the likeliest.
fn likeliest(log_probabilities: &[f64]) -> usize {
    let first =
        |best: (usize, f64), (index, value): (usize, &f64)| if *value > best.1 { (index, *value) } else { best };
    log_probabilities.iter().enumerate().fold((0, f64::NEG_INFINITY), first).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_definitions() {
        let mut sums = Sums::default();
        // Probabilities 1/2, 1/4, 1/4 against three times 1/3, and 3/4, 1/8, 1/8 against itself.
        sums.add(&[2f32.ln(), 0.0, 0.0], &[5.0, 5.0, 5.0], 0);
        sums.add(&[6f32.ln(), 0.0, 0.0], &[6f32.ln(), 0.0, 0.0], 1);
        let got = sums.comparison();
        let kl = 0.5 * (1.5f64).ln() + 0.5 * (0.75f64).ln();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        near(got.mean_kl, kl / 2.0);
        near(got.top1_agreement, 1.0);
        near(got.perplexity_f32, (2.0f64 * 8.0).sqrt());
        near(got.perplexity, (3.0f64 * 8.0).sqrt());
        near(got.loss(), 1.5f64.sqrt() - 1.0);
        sums.add(&[1.0, 2.0, 0.0], &[2.0, 1.0, 0.0], 0);
        near(sums.comparison().top1_agreement, 2.0 / 3.0);
    }
}
