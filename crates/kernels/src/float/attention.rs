//! Between the two products of an attention block: rotary positions, the rings, and attention over what the window shows.
//!
//! A ring of R slots holds position `p` in slot `p mod R`. Slots are taken in blocks; each block gives a query its largest
//! score, the sum of its shares and their mix, and blocks are joined in the ring's order. So a token's result depends on
//! the positions that it sees alone: not on the chunk that it came in, nor on the other rows.

use super::math::exp;

/// Slots of a block.
pub(crate) const BLOCK: usize = 256;
/// Scores of slots that a query does not see.
pub(super) const UNSEEN: f32 = f32::NEG_INFINITY;

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
    pub(super) fn within(self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
        self.0.into_iter().map(move |(a, b)| (a.max(from), b.min(to))).filter(|(a, b)| a < b)
    }

    /// Whether some slot of `[from, to)` is seen.
    #[inline(always)]
    pub(crate) fn touches(self, from: usize, to: usize) -> bool {
        self.within(from, to).next().is_some()
    }

    /// Whether all of `[from, to)` is seen.
    #[inline(always)]
    pub(super) fn sees(self, from: usize, to: usize) -> bool {
        self.0.into_iter().any(|(a, b)| a <= from && to <= b)
    }

    /// The runs by their slots.
    #[inline(always)]
    pub(super) fn in_order(self) -> [(usize, usize); 2] {
        match self.0[1].0 < self.0[0].0 {
            true => [self.0[1], self.0[0]],
            false => self.0,
        }
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
