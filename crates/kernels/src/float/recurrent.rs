//! Between the two products of a recurrent block: convolution, gates and the RG-LRU (De et al., "Griffin",
//! arXiv:2402.19427, section 2.4), one head after another: a head's channels depend on no other's.

use super::gates::gates;
use super::lanes::Lanes;
use super::math::{exp, gelu, sigmoid};

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

#[inline(always)]
pub(crate) fn head<L: Lanes, const TILE: usize>(input: &Head<'_>, out: &mut HeadOutput<'_>, scratch: &mut HeadScratch) {
    let RecurrentShape { rows, tokens, gate, .. } = input.shape;
    let count = rows * tokens;
    scratch.u.resize(count * gate, 0.0);
    scratch.gates.resize(count * 2 * gate, 0.0);
    for row in 0..rows {
        convolve(input, row, &mut scratch.u[row * tokens * gate..][..tokens * gate], out.conv);
    }
    let bias = &input.weights.gates_bias[input.head * 2 * gate..][..2 * gate];
    let weights = &input.weights.gates[input.head * gate * 2 * gate..][..gate * 2 * gate];
    gates::<L, TILE>(&scratch.u, weights, bias, &mut scratch.gates, gate);
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

/// `h[t] = a · h[t-1] + √(1 - a²) · (i · u[t])` with `log a = r · log_decay`; at position 0, `a` is 0 and the root is 1. Then
/// `mixed = h · gelu(y)`.
#[inline(always)]
fn recur(input: &Head<'_>, row: usize, scratch: &mut HeadScratch, out: &mut HeadOutput<'_>) {
    let RecurrentShape { tokens, gate, .. } = input.shape;
    let (width, first) = (input.shape.width(), input.head * gate);
    let state = &mut out.lru[row * gate..][..gate];
    state.copy_from_slice(&input.lru[row * width + first..][..gate]);
    let log_decay = &input.weights.log_decay[first..][..gate];
    for token in 0..tokens {
        let at = row * tokens + token;
        let continues = input.continues[at];
        let (i, r) = scratch.gates[at * 2 * gate..][..2 * gate].split_at_mut(gate);
        let y = &input.branches[at * 2 * width + first..][..gate];
        // One loop for each result: the compiler makes vector code of loops over few slices.
        decay(r, log_decay);
        enter(i, &scratch.u[at * gate..][..gate], r, continues);
        advance(state, r, i, continues);
        leave(&mut out.mixed[at * gate..][..gate], state, y);
    }
}

/// `log a`, from what the recurrent gate is made of.
#[inline(always)]
fn decay(gate: &mut [f32], log_decay: &[f32]) {
    for (gate, log_decay) in gate.iter_mut().zip(log_decay) {
        *gate = sigmoid(*gate) * log_decay;
    }
}

/// What enters the state, from what the input gate is made of.
#[inline(always)]
fn enter(gate: &mut [f32], u: &[f32], log_a: &[f32], continues: f32) {
    for ((gate, u), log_a) in gate.iter_mut().zip(u).zip(log_a) {
        let root = (1.0 - exp(2.0 * log_a)).sqrt();
        let root = root.mul_add(continues, 1.0 - continues);
        *gate = u * sigmoid(*gate) * root;
    }
}

/// The next state.
#[inline(always)]
fn advance(state: &mut [f32], log_a: &[f32], entered: &[f32], continues: f32) {
    for ((state, log_a), entered) in state.iter_mut().zip(log_a).zip(entered) {
        *state = (exp(*log_a) * continues).mul_add(*state, *entered);
    }
}

/// What the state gives.
#[inline(always)]
fn leave(mixed: &mut [f32], state: &[f32], y: &[f32]) {
    for ((mixed, state), y) in mixed.iter_mut().zip(state).zip(y) {
        *mixed = state * gelu(*y);
    }
}
