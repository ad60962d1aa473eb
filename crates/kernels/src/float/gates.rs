//! The products of a head's gates: small, in f32, and read anew for each step.

use super::lanes::Lanes;
use super::math::{Vector, WIDTH};

/// Rows that read the weights together: their sums stay in the first cache.
const ROWS: usize = 8;
/// Rows of weights that are taken together.
const AT_ONCE: usize = 4;
/// Vectors of outputs that a tile computes.
const VECTORS: usize = 4;

/// `gates [m, 2 · gate] = bias + u [m, gate] · weights [gate, 2 · gate]`, each sum in the order of the channels. `TILE` rows
/// share what is read.
#[inline(always)]
pub(crate) fn gates<L: Lanes, const TILE: usize>(
    u: &[f32],
    weights: &[f32],
    bias: &[f32],
    gates: &mut [f32],
    gate: usize,
) {
    let tiles = TILE > 1 && (2 * gate).is_multiple_of(VECTORS * WIDTH);
    let whole = if tiles { u.len() / gate / TILE * TILE } else { 0 };
    let (tiled_u, u) = u.split_at(whole * gate);
    let (tiled, rest) = gates.split_at_mut(whole * 2 * gate);
    // A strip of the weights stays in the first cache for all rows.
    for at in (0..2 * gate).step_by(VECTORS * WIDTH) {
        for (u, gates) in tiled_u.chunks_exact(TILE * gate).zip(tiled.chunks_exact_mut(TILE * 2 * gate)) {
            tile::<L, TILE>(u, weights, bias, gates, gate, at);
        }
    }
    for (u, gates) in u.chunks(ROWS * gate).zip(rest.chunks_mut(ROWS * 2 * gate)) {
        stream(u, weights, bias, gates, gate);
    }
}

/// Outputs from `at` on, of `TILE` rows.
#[inline(always)]
fn tile<L: Lanes, const TILE: usize>(
    u: &[f32],
    weights: &[f32],
    bias: &[f32],
    gates: &mut [f32],
    gate: usize,
    at: usize,
) {
    let vectors = |values: usize| values + at..values + at + VECTORS * WIDTH;
    let mut sums = [[L::all(0.0); VECTORS]; TILE];
    let bias: &[Vector] = bias[vectors(0)].as_chunks().0;
    for sums in &mut sums {
        for (sum, bias) in sums.iter_mut().zip(bias) {
            *sum = L::load(bias);
        }
    }
    for k in 0..gate {
        let weights: &[Vector] = weights[vectors(k * 2 * gate)].as_chunks().0;
        for (row, sums) in sums.iter_mut().enumerate() {
            let u = L::all(u[row * gate + k]);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = u.mul_add(L::load(weights), *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (sum, gates) in sums.iter().zip(gates[vectors(row * 2 * gate)].as_chunks_mut().0) {
            sum.store(gates);
        }
    }
}

/// The same for few rows: weights are read from one end to the other, as fast as memory gives them.
#[inline(always)]
fn stream(u: &[f32], weights: &[f32], bias: &[f32], gates: &mut [f32], gate: usize) {
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
