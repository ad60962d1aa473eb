//! 4 bits a value: `value = (q - 8) * scale` with q from 0 to 15.
//!
//! The scale is searched for, since the one that only fits the largest value wastes levels on it: each of [`TRIED`] gives levels
//! to all values, those levels their best scale by least squares, and the scale with the least error is kept. The error is
//! `Σ importance · (value - rounded)²`.

/// The levels at which the value of largest magnitude is put, one after another. -8 is the end of the range, and rounding to the
/// nearest; beyond it that value is cut off and the others get finer steps, before it the range ends early; 7 is the other end.
const TRIED: [f32; 18] = [
    -8.0, -7.0, -7.25, -7.5, -7.625, -7.75, -7.875, -8.125, -8.25, -8.375, -8.5, -8.75, -9.0, -9.5, -10.0, 7.0, 7.5,
    8.0,
];

/// Adding and taking it away rounds a number below 2^22 to the nearest whole one, ties to even, in any vector unit.
const ROUNDS: f32 = 12_582_912.0;

/// Most values of a block.
const MOST: usize = super::BLOCK_SIZES[0];

/// Quantizes one block; returns its scale. `importance` has a weight, not negative, for the squared error of each value;
/// without it all count the same.
///
/// # Panics
/// If there are more values than the largest block has.
pub fn quantize(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> f32 {
    let scale = scale(values, importance);
    let level = |value: f32| match scale {
        0.0 => 8,
        scale => (round((value / scale).clamp(-8.0, 7.0)) + 8.0) as u8,
    };
    for (pair, byte) in values.chunks_exact(2).zip(out) {
        *byte = level(pair[0]) | level(pair[1]) << 4;
    }
    scale
}

/// The scale of least error among those tried.
fn scale(values: &[f32], importance: Option<&[f32]>) -> f32 {
    let extreme = values.iter().copied().fold(0.0f32, |max, value| if value.abs() > max.abs() { value } else { max });
    if extreme == 0.0 {
        return 0.0;
    }
    // Values and weights in units of the largest, so that no square is too large or too small for f32.
    let (mut units, mut weights) = ([0.0f32; MOST], [1.0f32; MOST]);
    let (units, weights) = (&mut units[..values.len()], &mut weights[..values.len()]);
    for (unit, value) in units.iter_mut().zip(values) {
        *unit = value / extreme;
    }
    if let Some(importance) = importance {
        let most = importance.iter().copied().fold(0.0f32, f32::max);
        if most > 0.0 && most.is_finite() {
            weights.iter_mut().zip(importance).for_each(|(weight, importance)| *weight = importance / most);
        }
    }
    let (mut best, mut gain) = (1.0 / TRIED[0], 0.0);
    for tried in TRIED {
        let (along, power) = fit(units, weights, tried);
        // With its best scale, this choice of levels takes so much off the error of rounding all to zero.
        let takes = along * along / power;
        if takes > gain {
            (best, gain) = (along / power, takes);
        }
    }
    let scale = best * extreme;
    // So close to zero that its eighth is not a number of its own.
    if scale.is_normal() { scale } else { extreme / TRIED[0] }
}

/// The sums of least squares for the levels that `units` get when 1 is put at `level`: `Σ w u q` and `Σ w q²`.
fn fit(units: &[f32], weights: &[f32], level: f32) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut along, mut power) = ([0.0f32; LANES], [0.0f32; LANES]);
    for (units, weights) in units.chunks_exact(LANES).zip(weights.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let q = round((units[lane] * level).clamp(-8.0, 7.0));
            along[lane] += weights[lane] * units[lane] * q;
            power[lane] += weights[lane] * q * q;
        }
    }
    (along.iter().sum(), power.iter().sum())
}

fn round(value: f32) -> f32 {
    (value + ROUNDS) - ROUNDS
}

/// The values of one block.
pub fn dequantize(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = f32::from((byte & 15) as i8 - 8) * scale;
        pair[1] = f32::from((byte >> 4) as i8 - 8) * scale;
    }
}
