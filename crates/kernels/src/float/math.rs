//! Elementary functions without branches, so that loops over them become vector code; with fused multiply-adds in one fixed
//! order, so that every instruction set gives the same bits. NaN stays NaN.

/// Values that are worked on side by side.
pub(crate) const WIDTH: usize = 16;
/// One vector.
pub(crate) type Vector = [f32; WIDTH];

/// 1.5 · 2²³: added to a small number, it rounds it to the nearest integer.
const MAGIC: f32 = 12_582_912.0;
/// The natural logarithm of 2, in two parts: the first has few bits, so that its multiples are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Between these, `e^x` is a normal number.
const RANGE: [f32; 2] = [-87.0, 88.0];

/// `e^x` to about one unit in the last place; below -87 what it is there, above 88 what it is there.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Written so that NaN passes.
    let x = if x < RANGE[0] { RANGE[0] } else { x };
    let x = if x > RANGE[1] { RANGE[1] } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    // e^r for |r| up to ln 2 / 2: the minimax polynomial of Cephes' expf (Moshier, 1989).
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    // 2^n, by its exponent's bits.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    p * power
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The Gaussian error linear unit in its tanh form: `x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, which is
/// `x · sigmoid(2 √(2/π) (x + 0.044715 x³))`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    /// `2 √(2/π)`.
    const SLOPE: f32 = 1.595_769;
    x * sigmoid(SLOPE * (x * x).mul_add(0.044_715 * x, x))
}

/// The hyperbolic tangent, to about 1e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// The sum of a vector, in the order that all vectors are summed in.
#[inline(always)]
pub(crate) fn sum(v: &Vector) -> f32 {
    let mut v = *v;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] += v[i + half];
        }
    }
    v[0]
}

/// The largest of a vector; NaN values do not count.
#[inline(always)]
pub(crate) fn max(v: &Vector) -> f32 {
    let mut v = *v;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] = if v[i + half] > v[i] { v[i + half] } else { v[i] };
        }
    }
    v[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_as_exact_as_they_say() {
        for i in -200_000..=200_000i32 {
            let x = i as f32 * 4.3e-4;
            let wide = f64::from(x);
            let relative = |got: f32, true_value: f64| (f64::from(got) - true_value).abs() / true_value.abs();
            assert!(relative(exp(x), wide.exp()) < 1.2e-7 * 1.5, "exp {x}");
            assert!(relative(sigmoid(x), 1.0 / (1.0 + (-wide).exp())) < 4e-7, "sigmoid {x}");
            assert!((f64::from(tanh(x)) - wide.tanh()).abs() < 2e-7, "tanh {x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let gelu_there = 0.5 * wide * (1.0 + inner.tanh());
            assert!((f64::from(gelu(x)) - gelu_there).abs() <= 6e-7 * wide.abs().max(1.0), "gelu {x}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_in_sight() {
        for function in [exp, sigmoid, gelu, tanh] {
            assert!(function(f32::NAN).is_nan());
        }
        assert_eq!(gelu(1e30), 1e30);
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }
}
