//! The golden test: what a model must answer on this device before it is served.

use std::time::Instant;

use recurve_bundle::{Golden, Tolerance};
use recurve_runtime::{Batch, Model, StepError};

use super::load::Graph;

/// What came out of a golden test that was passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Examined {
    /// How far the logits are from the golden ones, in the bundle's measure.
    pub apart: f64,
    /// How far they may be.
    pub allowed: f64,
    /// Tokens a second, of one row, one after the other.
    pub tokens_per_second: f64,
}

/// Why a golden test was not passed.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A step failed.
    #[error("the golden test cannot be computed: {0}")]
    Step(String),
    /// The logits are others.
    #[error(
        "the golden test failed: the logits are {apart:.1e} away from the golden ones, and {allowed:.0e} is allowed"
    )]
    Apart {
        /// How far they are.
        apart: f64,
        /// How far they may be.
        allowed: f64,
    },
}

/// Logits that were computed, and the golden ones.
#[derive(Debug, Default)]
struct Compared {
    found: Vec<f32>,
    expected: Vec<f32>,
    /// Seconds that each step of a single token took.
    times: Vec<f64>,
}

impl Graph {
    /// Computes the golden test on the first row, token by token and in the largest chunks, and puts the row back.
    ///
    /// # Errors
    /// A step fails, or the logits are too far away.
    pub fn examine(&mut self, golden: &Golden) -> Result<Examined, GoldenError> {
        let mut compared = Compared::default();
        for size in [1, self.model.layout().max_chunk] {
            compute(&mut self.model, golden, &golden.tokens, size, &mut compared)
                .map_err(|error| GoldenError::Step(error.to_string()))?;
        }
        self.model.scrub(0);
        let (apart, allowed) = compared.judged(golden.tolerance)?;
        compared.times.sort_by(f64::total_cmp);
        let median = compared.times[compared.times.len() / 2];
        Ok(Examined { apart, allowed, tokens_per_second: 1.0 / median.max(1e-9) })
    }
}

/// Computes the golden test up to the first logits that it has, in the largest chunks: a step or a few, which read every weight
/// but the embeddings of other tokens. Puts the row back.
///
/// # Errors
/// The outer error says that a step fails, the inner one that the logits are too far away.
pub fn examine_briefly(model: &mut Model, golden: &Golden) -> Result<Result<(), GoldenError>, StepError> {
    let mut compared = Compared::default();
    let tokens = &golden.tokens[..=golden.tokens.len() - golden.positions];
    let computed = compute(model, golden, tokens, model.layout().max_chunk, &mut compared);
    model.scrub(0);
    computed.map(|()| compared.judged(golden.tolerance).map(drop))
}

/// Reads the first of the golden test's tokens in chunks of this size.
fn compute(
    model: &mut Model,
    golden: &Golden,
    tokens: &[u32],
    size: usize,
    compared: &mut Compared,
) -> Result<(), StepError> {
    let vocab = golden.vocab_size;
    let first = golden.tokens.len() - golden.positions;
    model.reset(0);
    let mut read = 0;
    for ids in tokens.chunks(size) {
        let begun = Instant::now();
        let step = model.step(Batch { first: 0, starts: &[read as u64], ids, logits: 1, tag: None })?;
        if ids.len() == 1 {
            compared.times.push(begun.elapsed().as_secs_f64());
        }
        read += ids.len();
        // Those of the chunk's last token.
        if let Some(at) = (read - 1).checked_sub(first) {
            compared.found.extend_from_slice(step.logits);
            compared.expected.extend_from_slice(&golden.logits[at * vocab..(at + 1) * vocab]);
        }
    }
    Ok(())
}

impl Compared {
    /// How far the logits are apart, and how far they may be.
    fn judged(&self, measure: Tolerance) -> Result<(f64, f64), GoldenError> {
        let (apart, allowed) = (distance(&self.found, &self.expected, measure), allowed(measure));
        // Not a number is too far as well.
        if apart.is_nan() || apart > allowed {
            Err(GoldenError::Apart { apart, allowed })
        } else {
            Ok((apart, allowed))
        }
    }
}

/// How far logits may be away: the order of summation of f32, or activations that products round to 8 bits.
fn allowed(measure: Tolerance) -> f64 {
    match measure {
        Tolerance::MaxAbs => 1e-3,
        Tolerance::RelativeRms => 0.05,
    }
}

fn distance(logits: &[f32], golden: &[f32], measure: Tolerance) -> f64 {
    let differences = || logits.iter().zip(golden).map(|(a, b)| f64::from(a - b));
    match measure {
        // `f64::max` would pass over what is not a number.
        Tolerance::MaxAbs => differences().map(f64::abs).fold(0.0, |a, b| if b.is_nan() || b > a { b } else { a }),
        Tolerance::RelativeRms => {
            let scale: f64 = golden.iter().map(|&logit| f64::from(logit) * f64::from(logit)).sum();
            (differences().map(|difference| difference * difference).sum::<f64>() / scale).sqrt()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_bundles_measure() {
        let golden = [3.0, 4.0];
        assert_eq!(distance(&[3.0, 4.5], &golden, Tolerance::MaxAbs), 0.5);
        assert_eq!(distance(&[3.0, 4.5], &golden, Tolerance::RelativeRms), 0.1);
        for measure in [Tolerance::MaxAbs, Tolerance::RelativeRms] {
            assert!(distance(&[f32::NAN, 4.0], &golden, measure).is_nan());
        }
    }
}
