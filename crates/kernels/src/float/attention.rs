//! Between the two products of an attention block: rotary positions, the rings, and attention over what the window shows.
//!
//! A ring of R slots holds position `p` in slot `p mod R`. Slots are taken in blocks; each block gives a query its largest
//! score, the sum of its shares and their mix, and blocks are joined in the ring's order. So a token's result depends on
//! the positions that it sees alone: not on the chunk that it came in, nor on the other rows.

use super::math::{Vector, WIDTH, exp, max, sum};

/// Slots of a block.
pub(crate) const BLOCK: usize = 256;
/// Slots whose keys or values are in the first cache while all queries use them.
const NEAR: usize = 16;
/// Scores of slots that a query does not see.
const UNSEEN: f32 = f32::NEG_INFINITY;

/// Sizes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows of the batch.
    pub rows: usize,
    /// Tokens of each row.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub dim: usize,
    /// Values of a head that are rotated: the first ones, half against half.
    pub rotary: usize,
    /// Slots of the ring.
    pub ring: usize,
    /// Positions that a token sees, its own included.
    pub window: usize,
}

impl AttentionShape {
    /// Query heads of a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values that a token brings: queries, keys, values.
    pub fn token(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    pub(crate) fn blocks(&self) -> usize {
        self.ring.div_ceil(BLOCK)
    }
}

/// Slots of a ring that a token sees: at most two runs, `[from, to)` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen([(usize, usize); 2]);

impl Seen {
    /// What a token at `position` sees.
    #[inline(always)]
    pub(crate) fn at(position: u64, shape: &AttentionShape) -> Self {
        let ring = shape.ring as u64;
        let count = (shape.window as u64).min(position + 1);
        let from = ((position + 1 - count) % ring) as usize;
        let to = from + count as usize;
        match to <= shape.ring {
            true => Self([(from, to), (0, 0)]),
            false => Self([(from, shape.ring), (0, to - shape.ring)]),
        }
    }

    /// Those within `[from, to)`.
    #[inline(always)]
    fn within(self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
        self.0.into_iter().map(move |(a, b)| (a.max(from), b.min(to))).filter(|(a, b)| a < b)
    }

    pub(crate) fn touches(self, from: usize, to: usize) -> bool {
        self.within(from, to).next().is_some()
    }
}

/// What some slots give one query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partial {
    /// The largest score.
    pub(crate) most: f32,
    /// The sum of the shares, relative to the largest.
    pub(crate) total: f32,
}

impl Partial {
    /// Of no slots.
    pub(crate) const NONE: Partial = Partial { most: UNSEEN, total: 0.0 };
}

/// Rotates the first `2 · cos.len()` values of a head, half against half, and multiplies all by `scale`.
#[inline(always)]
pub(crate) fn rotate(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
    let half = cos.len();
    for i in 0..half {
        let (low, high) = (x[i], x[half + i]);
        out[i] = (low * cos[i] - high * sin[i]) * scale;
        out[half + i] = (high * cos[i] + low * sin[i]) * scale;
    }
    for i in 2 * half..x.len() {
        out[i] = x[i] * scale;
    }
}

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
pub(crate) fn block(
    queries: Queries<'_>,
    [keys, values]: [&[f32]; 2],
    [from, to]: [usize; 2],
    scores: &mut [f32],
    partials: &mut [Partial],
    mix: &mut [f32],
) {
    let dim = queries.dim;
    score(queries, keys, [from, to], scores);
    for ((scores, partial), seen) in scores.chunks_exact_mut(BLOCK).zip(partials.iter_mut()).zip(queries.seen) {
        *partial = share(scores, seen, from, to);
    }
    mix[..queries.seen.len() * dim].fill(0.0);
    for near in (from..to).step_by(NEAR) {
        let end = (near + NEAR).min(to);
        for ((seen, scores), mix) in queries.seen.iter().zip(scores.chunks_exact(BLOCK)).zip(mix.chunks_exact_mut(dim))
        {
            for (a, b) in seen.within(near, end) {
                add(&scores[a - from..b - from], &values[a * dim..b * dim], mix);
            }
        }
    }
}

/// Adds `shares [slots]` of `values [slots, dim]`, four slots at a time.
#[inline(always)]
fn add(shares: &[f32], values: &[f32], mix: &mut [f32]) {
    let dim = mix.len();
    let (mut fours, mut rows) = (shares.chunks_exact(4), values.chunks_exact(4 * dim));
    for (shares, rows) in fours.by_ref().zip(rows.by_ref()) {
        let row: [&[f32]; 4] = std::array::from_fn(|i| &rows[i * dim..][..dim]);
        for (i, mix) in mix.iter_mut().enumerate() {
            let one = shares[0].mul_add(row[0][i], *mix);
            let two = shares[1].mul_add(row[1][i], one);
            let three = shares[2].mul_add(row[2][i], two);
            *mix = shares[3].mul_add(row[3][i], three);
        }
    }
    for (share, row) in fours.remainder().iter().zip(rows.remainder().chunks_exact(dim)) {
        for (mix, value) in mix.iter_mut().zip(row) {
            *mix = share.mul_add(*value, *mix);
        }
    }
}

/// The products of queries and keys of every slot that some query sees.
#[inline(always)]
fn score(queries: Queries<'_>, keys: &[f32], [from, to]: [usize; 2], scores: &mut [f32]) {
    let dim = queries.dim;
    for near in (from..to).step_by(NEAR) {
        let end = (near + NEAR).min(to);
        for (i, query) in queries.values.chunks_exact(dim).enumerate() {
            for (a, b) in queries.seen[i].within(near, end) {
                for slot in a..b {
                    scores[i * BLOCK + slot - from] = dot(query, &keys[slot * dim..][..dim]);
                }
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums: [Vector; 2] = [[0.0; WIDTH]; 2];
    let (mut a, mut b) = (a.chunks_exact(2 * WIDTH), b.chunks_exact(2 * WIDTH));
    for (a, b) in a.by_ref().zip(b.by_ref()) {
        for (half, sums) in sums.iter_mut().enumerate() {
            for i in 0..WIDTH {
                sums[i] = a[half * WIDTH + i].mul_add(b[half * WIDTH + i], sums[i]);
            }
        }
    }
    for (i, (a, b)) in a.remainder().iter().zip(b.remainder()).enumerate() {
        sums[0][i % WIDTH] = a.mul_add(*b, sums[0][i % WIDTH]);
    }
    let mut all = sums[0];
    for i in 0..WIDTH {
        all[i] += sums[1][i];
    }
    sum(&all)
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

impl Seen {
    /// The runs by their slots.
    #[inline(always)]
    fn in_order(self) -> [(usize, usize); 2] {
        match self.0[1].0 < self.0[0].0 {
            true => [self.0[1], self.0[0]],
            false => self.0,
        }
    }
}

/// Adds a later block's partial result to `all`, whose mix is `mix [dim]`.
#[inline(always)]
pub(crate) fn join(all: &mut Partial, mix: &mut [f32], other: Partial, other_mix: &[f32]) {
    if other.most == UNSEEN && other.total == 0.0 {
        return;
    }
    let most = if other.most > all.most { other.most } else { all.most };
    let scale = |partial: Partial| if partial.most == UNSEEN { 1.0 } else { exp(partial.most - most) };
    let (mine, others) = (scale(*all), scale(other));
    *all = Partial { most, total: all.total * mine + other.total * others };
    for (mix, other) in mix.iter_mut().zip(other_mix) {
        *mix = *mix * mine + *other * others;
    }
}

/// Divides the shares' mix by their sum.
#[inline(always)]
pub(crate) fn finish(all: Partial, mix: &mut [f32]) {
    let inverse = 1.0 / all.total;
    mix.iter_mut().for_each(|mix| *mix *= inverse);
}
