//! Finding tokens among a vocabulary's logits: the largest, the most probable ones, one at random.
//!
//! A vocabulary has up to 256,000 tokens and a token is chosen between two steps, so logits are gone through a few times, by
//! loops that become vector code, and nothing of a vocabulary's size is allocated or sorted. Tokens are ordered by falling
//! logit or weight, equal ones by their number. Every sum is made in one order: the same everywhere.

use recurve_runtime::exponentials;

use super::sample::Sampling;

/// Values that are looked at together.
const LANES: usize = 16;
/// Weights that have a sum of their own.
const BLOCK: usize = 1024;

/// The largest logit; none if one is not finite.
pub(super) fn largest(logits: &[f32]) -> Option<f32> {
    let (lanes, rest) = logits.as_chunks::<LANES>();
    let (mut most, mut finite) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
    for values in lanes {
        for i in 0..LANES {
            most[i] = if values[i] > most[i] { values[i] } else { most[i] };
            // What is finite gives 0, everything else NaN.
            finite[i] += values[i] * 0.0;
        }
    }
    let all_finite = finite.iter().all(|sum| *sum == 0.0) && rest.iter().all(|logit| logit.is_finite());
    all_finite.then(|| most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max))
}

/// The first token with this logit; 0 if there is none.
pub(super) fn first_of(logits: &[f32], logit: f32) -> u32 {
    let has = |logits: &&[f32]| {
        let mut found = false;
        for &other in *logits {
            found |= other == logit;
        }
        found
    };
    let chunk = (0..).step_by(LANES).zip(logits.chunks(LANES)).find(|(_, logits)| has(logits));
    let token = chunk.and_then(|(first, logits)| (first..).zip(logits).find(|(_, other)| **other == logit));
    token.map_or(0, |(token, _)| token)
}

/// `ln Σ e^x`, where `most` is the largest.
pub(super) fn log_sum_exp(logits: &[f32], most: f32) -> f64 {
    let mut block = [0.0; BLOCK];
    let sums = logits.chunks(BLOCK).map(|logits| {
        let block = &mut block[..logits.len()];
        block.copy_from_slice(logits);
        exponentials(most, 1.0, block);
        sum(block)
    });
    f64::from(most) + sums.sum::<f64>().ln()
}

/// The tokens with the largest logits, the largest first. One pass: what is not above the smallest one kept is passed over,
/// many at a time.
pub(super) fn most_probable(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count == 0 {
        return Vec::new();
    }
    let room = (2 * count).max(count + 256).min(logits.len());
    let mut kept: Vec<(u32, f32)> = Vec::with_capacity(room + LANES);
    // A later token with an equal logit ranks behind.
    let mut least = f32::NEG_INFINITY;
    for (first, logits) in (0..).step_by(LANES).zip(logits.chunks(LANES)) {
        let mut above = false;
        for &logit in logits {
            above |= logit > least;
        }
        if !above {
            continue;
        }
        kept.extend((first..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > least));
        if kept.len() >= room && kept.len() > count {
            kept.select_nth_unstable_by(count - 1, order);
            kept.truncate(count);
            least = kept[count - 1].1;
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(count);
    kept
}

/// Draws a token: weights relative to the most probable one, cut by top-k, top-p and min-p in this order; `random` from 0
/// to 1 falls on one of those that are left. `logits`, of which `most` is the largest, are overwritten.
pub(super) fn draw(sampling: &Sampling, most: f32, logits: &mut [f32], random: f64) -> u32 {
    let top_k = sampling.top_k as usize;
    if top_k == 0 || top_k >= logits.len() {
        exponentials(most, sampling.temperature, logits);
        if let Some(lightest) = lightest_of(logits, f64::from(sampling.top_p)) {
            drop_lighter(logits, lightest);
        }
        drop_lighter(logits, (sampling.min_p, u32::MAX));
        return fall(logits, random);
    }
    let mut kept = most_probable(logits, top_k);
    // In the order of the tokens, as without top-k.
    kept.sort_unstable_by_key(|(token, _)| *token);
    let mut weights: Vec<f32> = kept.iter().map(|(_, logit)| *logit).collect();
    exponentials(most, sampling.temperature, &mut weights);
    if let Some(lightest) = lightest_of(&weights, f64::from(sampling.top_p)) {
        drop_lighter(&mut weights, lightest);
    }
    drop_lighter(&mut weights, (sampling.min_p, u32::MAX));
    kept[fall(&weights, random) as usize].0
}

/// The sum of some weights.
fn sum(weights: &[f32]) -> f64 {
    let (lanes, rest) = weights.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for weights in lanes {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += f64::from(*weight);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|weight| f64::from(*weight)).sum::<f64>()
}

/// The last one of the heaviest weights that sum up to this share of all, at least one, and its place; none if all are
/// needed. Weights are from 0 to 1.
///
/// The bits of weights are ordered as they are: sums by their leading bits tell which of those the last one has, and sums
/// by the next ones narrow that down until so few are left that they can be sorted.
fn lightest_of(weights: &[f32], share: f64) -> Option<(f32, u32)> {
    /// Bits that are behind those looked at, one time after the other.
    const BEHIND: [u32; 2] = [20, 9];
    const BUCKETS: usize = 1 << 11;
    if share >= 1.0 {
        return None;
    }
    let mut wanted = share * weights.chunks(BLOCK).map(sum).sum::<f64>();
    // All that are lighter are less than what may be left out, even together.
    let matters = ((1.0 - share) / (2.0 * weights.len() as f64)) as f32;
    let (mut from, mut to) = (matters.to_bits(), f32::INFINITY.to_bits());
    for behind in BEHIND {
        let base = from >> behind;
        let mut sums = [0.0; BUCKETS];
        for weight in weights.iter().filter(|weight| (from..to).contains(&weight.to_bits())) {
            sums[((weight.to_bits() >> behind) - base) as usize] += f64::from(*weight);
        }
        let mut bucket = None;
        for (at, sum) in sums.into_iter().enumerate().rev().filter(|(_, sum)| *sum > 0.0) {
            bucket = Some(base + at as u32);
            if sum >= wanted {
                break;
            }
            wanted -= sum;
        }
        let bucket = bucket?;
        (from, to) = (from.max(bucket << behind), to.min((bucket + 1) << behind));
    }
    let bits = (0u32..).zip(weights).map(|(place, weight)| (weight.to_bits(), place));
    let mut last: Vec<(u32, u32)> = bits.filter(|(bits, _)| (from..to).contains(bits)).collect();
    last.sort_unstable_by_key(|&(bits, place)| (std::cmp::Reverse(bits), place));
    let mut lightest = None;
    for (bits, place) in last {
        if lightest.is_some() && wanted <= 0.0 {
            break;
        }
        let weight = f32::from_bits(bits);
        lightest = Some((weight, place));
        wanted -= f64::from(weight);
    }
    lightest
}

/// Leaves nothing of the weights that are lighter, nor of equal ones behind this place.
fn drop_lighter(weights: &mut [f32], (lightest, place): (f32, u32)) {
    for weight in weights.iter_mut() {
        *weight = if *weight < lightest { 0.0 } else { *weight };
    }
    let behind = weights.len().min((place as usize).saturating_add(1));
    weights[behind..].iter_mut().filter(|weight| **weight == lightest).for_each(|weight| *weight = 0.0);
}

/// Where `random` from 0 to 1 falls when the weights lie end to end. The largest weight is 1.
fn fall(weights: &[f32], random: f64) -> u32 {
    let mut left = random * weights.chunks(BLOCK).map(sum).sum::<f64>();
    for (first, weights) in (0..).step_by(BLOCK).zip(weights.chunks(BLOCK)) {
        let sum = sum(weights);
        if left >= sum {
            left -= sum;
            continue;
        }
        for (token, weight) in (first..).zip(weights).filter(|(_, weight)| **weight > 0.0) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return token;
            }
        }
    }
    // Sums in another order differ in their last bits: it falls on the last one.
    weights.iter().rposition(|weight| *weight > 0.0).map_or(0, |last| last as u32)
}

#[cfg(test)]
mod tests;
