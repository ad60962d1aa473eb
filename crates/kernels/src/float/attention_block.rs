//! What one block of a ring's slots gives the queries of a head.
//!
//! Queries and slots are worked on in tiles, so that a key or a value that was read serves several queries. A tile changes
//! nothing in a result: a score is one sum over the head's values, a mix one sum over the slots that the query sees, each
//! in one order.

use super::attention::{BLOCK, Partial, Seen, UNSEEN};
use super::lanes::Lanes;
use super::math::{Vector, WIDTH, exp, max, sum};

/// Slots whose keys or values are in the first cache while all queries use them.
const NEAR: usize = 16;
/// Slots that a tile scores.
const SCORED: usize = 4;
/// Vectors of a head that a tile mixes at a time.
const MIXED: usize = 4;

/// Queries that look at the same keys.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// `[count, dim]`, scaled.
    pub(crate) values: &'a [f32],
    /// What each sees.
    pub(crate) seen: &'a [Seen],
    /// Values of a head.
    pub(crate) dim: usize,
}

/// Attends slots `[from, to)` of one head's ring: each query's partial result, and its mix `[count, dim]` of the values.
/// `scores [count, BLOCK]` is memory to work in.
#[inline(always)]
pub(crate) fn block<L: Lanes, const TILE: usize>(
    queries: Queries<'_>,
    [keys, values]: [&[f32]; 2],
    [from, to]: [usize; 2],
    scores: &mut [f32],
    partials: &mut [Partial],
    mix: &mut [f32],
) {
    let (count, dim) = (queries.seen.len(), queries.dim);
    mix[..count * dim].fill(0.0);
    for near in (from..to).step_by(NEAR) {
        let near = [near, (near + NEAR).min(to)];
        let whole = count - count % TILE;
        for first in (0..whole).step_by(TILE) {
            score::<L, TILE>(queries, first, keys, near, from, scores);
        }
        for first in whole..count {
            score::<L, 1>(queries, first, keys, near, from, scores);
        }
    }
    for ((scores, partial), seen) in scores.chunks_exact_mut(BLOCK).zip(partials.iter_mut()).zip(queries.seen) {
        *partial = share(scores, seen, from, to);
    }
    for near in (from..to).step_by(NEAR) {
        let near = [near, (near + NEAR).min(to)];
        let whole = count - count % TILE;
        for first in (0..whole).step_by(TILE) {
            add::<L, TILE>(queries, first, values, near, from, scores, mix);
        }
        for first in whole..count {
            add::<L, 1>(queries, first, values, near, from, scores, mix);
        }
    }
}

/// Scores of slots `[near, end)` for queries `first .. first + TILE`, of which one at least sees some. Those that a query
/// does not see are no matter: its shares leave them out.
#[inline(always)]
fn score<L: Lanes, const TILE: usize>(
    queries: Queries<'_>,
    first: usize,
    keys: &[f32],
    [near, end]: [usize; 2],
    from: usize,
    scores: &mut [f32],
) {
    let dim = queries.dim;
    if !queries.seen[first..first + TILE].iter().any(|seen| seen.touches(near, end)) {
        return;
    }
    let query: [&[f32]; TILE] = std::array::from_fn(|i| &queries.values[(first + i) * dim..][..dim]);
    for slot in (near..end).step_by(SCORED) {
        let slots = SCORED.min(end - slot);
        // Behind the last slot, the last again: its score is not kept.
        let key: [&[f32]; SCORED] = std::array::from_fn(|i| &keys[(slot + i.min(slots - 1)) * dim..][..dim]);
        for (i, products) in products::<L, TILE>(query, key).iter().enumerate() {
            scores[(first + i) * BLOCK + slot - from..][..slots].copy_from_slice(&products[..slots]);
        }
    }
}

/// The products of each query with each key. Lanes are summed by themselves, then all of them; what is left of a head that
/// is no multiple of them comes last.
#[inline(always)]
fn products<L: Lanes, const TILE: usize>(queries: [&[f32]; TILE], keys: [&[f32]; SCORED]) -> [[f32; SCORED]; TILE] {
    let mut lanes = [[L::all(0.0); SCORED]; TILE];
    let (queries, keys) = (queries.map(|query| query.as_chunks()), keys.map(|key| key.as_chunks()));
    let count = queries.iter().chain(&keys).map(|(vectors, _)| vectors.len()).min().unwrap_or(0);
    for at in 0..count {
        let mut key = [L::all(0.0); SCORED];
        for (key, (vectors, _)) in key.iter_mut().zip(keys) {
            *key = L::load(&vectors[at]);
        }
        for (lanes, (query, _)) in lanes.iter_mut().zip(queries) {
            let query = L::load(&query[at]);
            for (lanes, key) in lanes.iter_mut().zip(key) {
                *lanes = query.mul_add(key, *lanes);
            }
        }
    }
    let mut all = [[0.0; SCORED]; TILE];
    for ((all, lanes), (_, query)) in all.iter_mut().zip(lanes).zip(queries) {
        *all = L::sums(lanes);
        for (sum, (_, key)) in all.iter_mut().zip(keys) {
            *sum = query.iter().zip(key).fold(*sum, |sum, (query, key)| query.mul_add(*key, sum));
        }
    }
    all
}

/// Adds the shares of slots `[near, end)` to the mixes of queries `first .. first + TILE`.
#[inline(always)]
fn add<L: Lanes, const TILE: usize>(
    queries: Queries<'_>,
    first: usize,
    values: &[f32],
    [near, end]: [usize; 2],
    from: usize,
    scores: &[f32],
    mix: &mut [f32],
) {
    let seen = &queries.seen[first..first + TILE];
    if seen.iter().all(|seen| seen.sees(near, end)) {
        mixed::<L, TILE>(queries.dim, first, values, [near, end], from, scores, mix);
        return;
    }
    for (i, seen) in seen.iter().enumerate() {
        for (near, end) in seen.within(near, end) {
            mixed::<L, 1>(queries.dim, first + i, values, [near, end], from, scores, mix);
        }
    }
}

/// The same where every query sees every slot.
#[inline(always)]
fn mixed<L: Lanes, const TILE: usize>(
    dim: usize,
    first: usize,
    values: &[f32],
    [near, end]: [usize; 2],
    from: usize,
    scores: &[f32],
    mix: &mut [f32],
) {
    let shares: [&[f32]; TILE] = std::array::from_fn(|i| &scores[(first + i) * BLOCK + near - from..][..end - near]);
    let values = &values[near * dim..end * dim];
    let mix = &mut mix[first * dim..(first + TILE) * dim];
    let wide = dim - dim % (MIXED * WIDTH);
    for at in (0..wide).step_by(MIXED * WIDTH) {
        columns::<L, TILE, MIXED>(dim, at, shares, values, mix);
    }
    let whole = dim - dim % WIDTH;
    for at in (wide..whole).step_by(WIDTH) {
        columns::<L, TILE, 1>(dim, at, shares, values, mix);
    }
    for (shares, mix) in shares.iter().zip(mix.chunks_exact_mut(dim)) {
        for (share, row) in shares.iter().zip(values.chunks_exact(dim)) {
            for (mix, value) in mix[whole..].iter_mut().zip(&row[whole..]) {
                *mix = share.mul_add(*value, *mix);
            }
        }
    }
}

/// `VECTORS` vectors from value `at` of a head on, of all mixes `[TILE, dim]`.
#[inline(always)]
fn columns<L: Lanes, const TILE: usize, const VECTORS: usize>(
    dim: usize,
    at: usize,
    shares: [&[f32]; TILE],
    values: &[f32],
    mix: &mut [f32],
) {
    let place = |row: usize| row * dim + at..row * dim + at + VECTORS * WIDTH;
    let mut sums = [[L::all(0.0); VECTORS]; TILE];
    for (query, sums) in sums.iter_mut().enumerate() {
        for (sum, mix) in sums.iter_mut().zip(mix[place(query)].as_chunks().0) {
            *sum = L::load(mix);
        }
    }
    for slot in 0..values.len() / dim {
        let value = values[place(slot)].as_chunks().0;
        for (sums, shares) in sums.iter_mut().zip(shares) {
            let share = L::all(shares[slot]);
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum = share.mul_add(L::load(value), *sum);
            }
        }
    }
    for (query, sums) in sums.iter().enumerate() {
        for (sum, mix) in sums.iter().zip(mix[place(query)].as_chunks_mut().0) {
            sum.store(mix);
        }
    }
}

/// Scores to shares, relative to the largest; what is not seen gets none.
#[inline(always)]
fn share(scores: &mut [f32], seen: &Seen, from: usize, to: usize) -> Partial {
    let mut at = from;
    for (a, b) in seen.in_order().into_iter().map(|(a, b)| (a.clamp(from, to), b.clamp(from, to))) {
        if a < b {
            scores[at - from..a - from].fill(UNSEEN);
            at = b;
        }
    }
    scores[at - from..].fill(UNSEEN);
    let mut most: Vector = [UNSEEN; WIDTH];
    for scores in scores.chunks_exact(WIDTH) {
        for i in 0..WIDTH {
            most[i] = if scores[i] > most[i] { scores[i] } else { most[i] };
        }
    }
    let most = max(&most);
    if most == UNSEEN {
        // Nothing is seen, or nothing but NaN: a total that is NaN then tells.
        let total = scores.iter().fold(0.0, |total, score| if score.is_nan() { f32::NAN } else { total });
        scores.fill(total);
        return Partial { most, total };
    }
    let mut total: Vector = [0.0; WIDTH];
    for scores in scores.chunks_exact_mut(WIDTH) {
        for i in 0..WIDTH {
            let share = exp(scores[i] - most);
            // The exponential of minus infinity is small, and this one must be nothing.
            scores[i] = if scores[i] == UNSEEN { 0.0 } else { share };
            total[i] += scores[i];
        }
    }
    Partial { most, total: sum(&total) }
}
