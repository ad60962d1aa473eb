//! Between the two products of a recurrent block: convolution, gates and the RG-LRU (De et al., "Griffin",
//! arXiv:2402.19427, section 2.4), one head after another: a head's channels depend on no other's.

use super::math::{Vector, WIDTH, exp, gelu, sigmoid};

/// The weights of one block. `width = heads · gate` channels.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentWeights<'a> {
    /// `[heads, gate, 2 · gate]`: for each input channel of a head, the weights of the input gates beside those of the
    /// recurrent gates.
    pub gates: &'a [f32],
    /// `[heads, 2 · gate]`.
    pub gates_bias: &'a [f32],
    /// `[width]`: the logarithm of the decay at a full gate.
    pub log_decay: &'a [f32],
    /// `[width]`.
    pub conv_bias: &'a [f32],
    /// Each tap's `[width]`, the one of the oldest input first.
    pub taps: &'a [&'a [f32]],
}

/// Sizes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentShape {
    /// Rows of the batch.
    pub rows: usize,
    /// Tokens of each row.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub gate: usize,
    /// Taps of the convolution.
    pub taps: usize,
}

impl RecurrentShape {
    /// Channels.
    pub fn width(&self) -> usize {
        self.heads * self.gate
    }
}

/// What one head reads. Sizes were checked.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) shape: RecurrentShape,
    pub(crate) weights: RecurrentWeights<'a>,
    /// `[rows, tokens, 2 · width]`: what is multiplied with in the end beside what is recurred.
    pub(crate) branches: &'a [f32],
    /// `[rows, taps - 1, width]`.
    pub(crate) conv: &'a [f32],
    /// `[rows, width]`.
    pub(crate) lru: &'a [f32],
    /// `[rows, tokens]`: 0 at position 0, 1 after it.
    pub(crate) continues: &'a [f32],
    pub(crate) head: usize,
}

/// What one head writes: `gate` channels of each place.
pub(crate) struct HeadOutput<'a> {
    /// `[rows · tokens, gate]`.
    pub(crate) mixed: &'a mut [f32],
    /// `[rows, taps - 1, gate]`.
    pub(crate) conv: &'a mut [f32],
    /// `[rows, gate]`.
    pub(crate) lru: &'a mut [f32],
}

/// Memory for one head: `[rows · tokens, gate]` and `[rows · tokens, 2 · gate]`.
#[derive(Debug, Default)]
pub(crate) struct HeadScratch {
    u: Vec<f32>,
    gates: Vec<f32>,
}

/// Rows of inputs whose gates are computed at a time: their sums stay in the first cache.
const TILE: usize = 8;

#[inline(always)]
pub(crate) fn head(input: &Head<'_>, out: &mut HeadOutput<'_>, scratch: &mut HeadScratch) {
    let RecurrentShape { rows, tokens, gate, .. } = input.shape;
    let count = rows * tokens;
    scratch.u.resize(count * gate, 0.0);
    scratch.gates.resize(count * 2 * gate, 0.0);
    for row in 0..rows {
        convolve(input, row, &mut scratch.u[row * tokens * gate..][..tokens * gate], out.conv);
    }
    let bias = &input.weights.gates_bias[input.head * 2 * gate..][..2 * gate];
    let weights = &input.weights.gates[input.head * gate * 2 * gate..][..gate * 2 * gate];
    for (u, gates) in scratch.u.chunks(TILE * gate).zip(scratch.gates.chunks_mut(TILE * 2 * gate)) {
        product(u, weights, bias, gates, gate);
    }
    for row in 0..rows {
        recur(input, row, scratch, out);
    }
}

/// The row's convolution, `[tokens, gate]`, and the inputs that the next step needs.
#[inline(always)]
fn convolve(input: &Head<'_>, row: usize, u: &mut [f32], kept: &mut [f32]) {
    let RecurrentShape { tokens, gate, taps, .. } = input.shape;
    let (width, first) = (input.shape.width(), input.head * gate);
    // Input `i` of the step, where the first `taps - 1` are carried.
    let at = |i: usize| match i.checked_sub(taps - 1) {
        None => &input.conv[(row * (taps - 1) + i) * width + first..][..gate],
        Some(token) => &input.branches[(row * tokens + token) * 2 * width + width + first..][..gate],
    };
    for (token, u) in u.chunks_exact_mut(gate).enumerate() {
        u.copy_from_slice(&input.weights.conv_bias[first..][..gate]);
        for (tap, weights) in input.weights.taps.iter().enumerate() {
            for ((u, x), w) in u.iter_mut().zip(at(token + tap)).zip(&weights[first..][..gate]) {
                *u = x.mul_add(*w, *u);
            }
        }
    }
    for (i, kept) in kept[row * (taps - 1) * gate..][..(taps - 1) * gate].chunks_exact_mut(gate).enumerate() {
        kept.copy_from_slice(at(tokens + i));
    }
}

/// `gates [m, 2 · gate] = bias + u [m, gate] · weights [gate, 2 · gate]`, each sum in the order of the channels: weights are
/// read from one end to the other, four rows at a time.
#[inline(always)]
fn product(u: &[f32], weights: &[f32], bias: &[f32], gates: &mut [f32], gate: usize) {
    /// Rows of weights at a time.
    const AT_ONCE: usize = 4;
    for gates in gates.chunks_exact_mut(2 * gate) {
        gates.copy_from_slice(bias);
    }
    let whole = gate / AT_ONCE * AT_ONCE;
    for k in (0..whole).step_by(AT_ONCE) {
        let rows: [&[f32]; AT_ONCE] = std::array::from_fn(|i| &weights[(k + i) * 2 * gate..][..2 * gate]);
        for (u, gates) in u.chunks_exact(gate).zip(gates.chunks_exact_mut(2 * gate)) {
            let u: [f32; AT_ONCE] = std::array::from_fn(|i| u[k + i]);
            for (i, sum) in gates.iter_mut().enumerate() {
                let one = u[0].mul_add(rows[0][i], *sum);
                let two = u[1].mul_add(rows[1][i], one);
                let three = u[2].mul_add(rows[2][i], two);
                *sum = u[3].mul_add(rows[3][i], three);
            }
        }
    }
    for k in whole..gate {
        let row = &weights[k * 2 * gate..][..2 * gate];
        for (u, gates) in u.chunks_exact(gate).zip(gates.chunks_exact_mut(2 * gate)) {
            for (sum, weight) in gates.iter_mut().zip(row) {
                *sum = u[k].mul_add(*weight, *sum);
            }
        }
    }
}

/// `h[t] = a · h[t-1] + √(1 - a²) · (i · u[t])` with `log a = r · log_decay`; at position 0, `a` is 0 and the root is 1. Then
/// `mixed = h · gelu(y)`.
#[inline(always)]
fn recur(input: &Head<'_>, row: usize, scratch: &HeadScratch, out: &mut HeadOutput<'_>) {
    let RecurrentShape { tokens, gate, .. } = input.shape;
    let (width, first) = (input.shape.width(), input.head * gate);
    let state = &mut out.lru[row * gate..][..gate];
    state.copy_from_slice(&input.lru[row * width + first..][..gate]);
    let log_decay = &input.weights.log_decay[first..][..gate];
    for token in 0..tokens {
        let at = row * tokens + token;
        let continues = input.continues[at];
        let (i, r) = scratch.gates[at * 2 * gate..][..2 * gate].split_at(gate);
        let u = &scratch.u[at * gate..][..gate];
        let y = &input.branches[at * 2 * width + first..][..gate];
        let mixed = &mut out.mixed[at * gate..][..gate];
        let whole = gate / WIDTH * WIDTH;
        for c in (0..whole).step_by(WIDTH) {
            let of = |values: &[f32]| -> Vector { std::array::from_fn(|i| values[c + i]) };
            let inputs = [of(i), of(r), of(u), of(y), of(log_decay), of(state)];
            let (state, mixed) = (&mut state[c..c + WIDTH], &mut mixed[c..c + WIDTH]);
            for i in 0..WIDTH {
                (state[i], mixed[i]) = channel(inputs.map(|values| values[i]), continues);
            }
        }
        for c in whole..gate {
            (state[c], mixed[c]) = channel([i[c], r[c], u[c], y[c], log_decay[c], state[c]], continues);
        }
    }
}

/// One channel's new state, and what it gives.
#[inline(always)]
fn channel([i, r, u, y, log_decay, state]: [f32; 6], continues: f32) -> (f32, f32) {
    let log_a = sigmoid(r) * log_decay;
    let root = (1.0 - exp(2.0 * log_a)).sqrt();
    let root = root.mul_add(continues, 1.0 - continues);
    let gated = u * sigmoid(i);
    let state = (exp(log_a) * continues).mul_add(state, gated * root);
    (state, state * gelu(y))
}
