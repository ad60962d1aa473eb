//! What is done value by value between two products.

use super::math::{gelu, tanh};

/// `y = gelu_tanh(gate) · up` for one row whose first half is `gate`.
#[inline(always)]
pub(crate) fn gated_gelu(branches: &[f32], y: &mut [f32]) {
    let (gate, up) = branches.split_at(y.len());
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = gelu(*gate) * up;
    }
}

/// `y = cap · tanh(x / cap)`.
#[inline(always)]
pub(crate) fn soft_cap(cap: f32, x: &[f32], y: &mut [f32]) {
    let inverse = 1.0 / cap;
    for (y, x) in y.iter_mut().zip(x) {
        *y = cap * tanh(x * inverse);
    }
}
