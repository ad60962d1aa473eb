//! What is done value by value between two products.

use super::math::{exp, gelu, tanh};

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

/// `x = e^((x - most) / scale)`; 0 below `e^-87`.
#[inline(always)]
pub(crate) fn exponentials(most: f32, scale: f32, x: &mut [f32]) {
    for x in x {
        let exponent = (*x - most) / scale;
        let power = exp(exponent);
        *x = if exponent < -87.0 { 0.0 } else { power };
    }
}
