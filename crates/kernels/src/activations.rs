//! Rounding activations to 8 bits, in units that share a scale.

use crate::layout::{Bits, GROUP, Group, UNIT, lane};

/// Units whose largest magnitude is below this are taken as zeros: the reciprocal of a scale must be finite.
const SMALLEST: f32 = 1e-30;
/// 1.5 · 2²³: added to a number of magnitude below 2²², it leaves the nearest integer (ties to even) in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Rounds one row of activations for weights of the given format. A unit with a value that is not finite gets the scale
/// NaN, so that all that is made of it is NaN.
///
/// `out` has as many groups as the row needs; what lies behind the row's end is zero.
#[inline(always)]
pub(crate) fn round_row(bits: Bits, row: &[f32], out: &mut [Group]) {
    for (values, group) in row.chunks(GROUP).zip(out) {
        if values.len() < GROUP {
            *group = Group::EMPTY;
        }
        for (unit, values) in values.chunks_exact(UNIT).enumerate() {
            let mut whole = [0.0; UNIT];
            whole.copy_from_slice(values);
            round_unit(bits, &whole, lane(unit), group);
        }
    }
}

#[inline(always)]
fn round_unit(bits: Bits, values: &[f32; UNIT], lane: usize, group: &mut Group) {
    // As integers, magnitudes compare as numbers do, and NaN is above infinity.
    let mut largest = 0;
    for value in values {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let (scale, inverse) = match largest {
        _ if largest < SMALLEST => (0.0, 0.0),
        _ if largest.is_finite() => (largest / 127.0, 127.0 / largest),
        _ => (f32::NAN, 0.0),
    };
    let mut rounded = [0i8; UNIT];
    let mut sum = 0;
    for (value, rounded) in values.iter().zip(&mut rounded) {
        // The low byte, as a signed number.
        *rounded = (value * inverse + MAGIC).to_bits() as i8;
        sum += i32::from(*rounded);
    }
    if scale.is_nan() {
        (rounded, sum) = ([0; UNIT], 0);
    }
    group.scale[lane] = scale;
    group.offset[lane] = -bits.zero() * sum;
    place(bits, &rounded, lane, group);
}

#[inline(always)]
fn place(bits: Bits, rounded: &[i8; UNIT], lane: usize, group: &mut Group) {
    let at = 4 * lane..4 * lane + 4;
    match bits {
        Bits::Four => {
            for (j, part) in rounded.chunks_exact(8).enumerate() {
                group.planes[j][at.clone()].copy_from_slice(&[part[0], part[2], part[4], part[6]]);
                group.planes[4 + j][at.clone()].copy_from_slice(&[part[1], part[3], part[5], part[7]]);
            }
        }
        Bits::Eight => {
            for (part, plane) in rounded.chunks_exact(4).zip(&mut group.planes) {
                plane[at.clone()].copy_from_slice(part);
            }
        }
    }
}
