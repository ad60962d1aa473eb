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

/// Levels that are tried side by side: as many as the vectors of every machine have numbers.
const TOGETHER: usize = 4;

/// The same in groups. The last one is filled up with the first level, which gains nothing over itself.
const GROUPS: [[f32; TOGETHER]; TRIED.len().div_ceil(TOGETHER)] = {
    let mut groups = [[TRIED[0]; TOGETHER]; TRIED.len().div_ceil(TOGETHER)];
    let mut at = 0;
    while at < TRIED.len() {
        groups[at / TOGETHER][at % TOGETHER] = TRIED[at];
        at += 1;
    }
    groups
};

/// Adding and taking it away rounds a number below 2^22 to the nearest whole one, ties to even, in any vector unit.
const ROUNDS: f32 = 12_582_912.0;

/// Most values of a block.
const MOST: usize = super::BLOCK_SIZES[0];
/// Sums that run side by side.
const LANES: usize = 16;

/// Quantizes one block; returns its scale. `importance` has a weight, not negative, for the squared error of each value;
/// without it all count the same.
///
/// # Panics
/// If there are more values than the largest block has.
pub fn quantize(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> f32 {
    let scale = scale(values, importance);
    // In two loops, since the first can be done with vectors.
    let mut levels = [8u8; MOST];
    if scale != 0.0 {
        for (level, value) in levels.iter_mut().zip(values) {
            *level = (round(within(value / scale)) + 8.0) as i32 as u8;
        }
    }
    for (pair, byte) in levels[..values.len()].chunks_exact(2).zip(out) {
        *byte = pair[0] | pair[1] << 4;
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
    let most = importance.map_or(0.0, |importance| importance.iter().copied().fold(0.0f32, f32::max));
    let weighed = most > 0.0 && most.is_finite();
    if let (Some(importance), true) = (importance, weighed) {
        weights.iter_mut().zip(importance).for_each(|(weight, importance)| *weight = importance / most);
    }
    let (mut best, mut gain) = (1.0 / TRIED[0], 0.0);
    for group in &GROUPS {
        let (along, power) =
            if weighed { fit::<true>(units, weights, group) } else { fit::<false>(units, weights, group) };
        for (along, power) in along.into_iter().zip(power) {
            // With its best scale, this choice of levels takes so much off the error of rounding all to zero.
            let takes = along * along / power;
            if takes > gain {
                (best, gain) = (along / power, takes);
            }
        }
    }
    let scale = best * extreme;
    // So close to zero that its eighth is not a number of its own.
    if scale.is_normal() { scale } else { extreme / TRIED[0] }
}

/// The sums of least squares for the levels that `units` get when 1 is put at each of these: `Σ w u q` and `Σ w q²`. Where
/// nothing is weighed, all weights are 1 and need no product: the sums are the same, bit by bit.
///
/// Values are added in the order of [`LANES`] sums side by side, which are then added up: the bytes of bundles depend on it.
fn fit<const WEIGHED: bool>(
    units: &[f32],
    weights: &[f32],
    tried: &[f32; TOGETHER],
) -> ([f32; TOGETHER], [f32; TOGETHER]) {
    let (units, weights) = (units.as_chunks::<LANES>().0, weights.as_chunks::<LANES>().0);
    let (mut along, mut power) = ([0.0f32; TOGETHER], [0.0f32; TOGETHER]);
    for lane in 0..LANES {
        let (mut lane_along, mut lane_power) = ([0.0f32; TOGETHER], [0.0f32; TOGETHER]);
        for (units, weights) in units.iter().zip(weights) {
            let (unit, weight) = (units[lane], weights[lane]);
            let weighed = if WEIGHED { weight * unit } else { unit };
            for (level, tried) in tried.iter().enumerate() {
                let q = round(within(unit * tried));
                lane_along[level] += weighed * q;
                lane_power[level] += if WEIGHED { weight * q * q } else { q * q };
            }
        }
        for level in 0..TOGETHER {
            along[level] += lane_along[level];
            power[level] += lane_power[level];
        }
    }
    (along, power)
}

/// The nearest value in the range of levels.
fn within(value: f32) -> f32 {
    // Each of the two is one instruction; `clamp` is several.
    let least = if value > -8.0 { value } else { -8.0 };
    if least < 7.0 { least } else { 7.0 }
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
