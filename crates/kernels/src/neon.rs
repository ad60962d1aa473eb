//! The block product for arm64, with the dot product of four bytes (Cortex-A76, A78AE) and without (A72).
//!
//! The matrix instructions of later cores (`i8mm`) are not used: none of the boards this is for has them, and they multiply
//! pairs of rows, for which activations would have to lie otherwise.

#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;
use std::ops::Range;

use crate::job::Job;
use crate::layout::{Group, LANES};
use crate::narrow::{self, Vectors};

/// Vectors of a group's lanes.
const PARTS: usize = 4;
/// Lanes of a vector.
const WIDTH: usize = LANES / PARTS;

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// The CPU has NEON; the rows are within the matrix.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn product(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's; the instructions are enabled.
    unsafe { narrow::product::<Neon<Widening>, PARTS>(job, rows) }
}

/// As [`product`], with sums of four products in one instruction.
///
/// # Safety
/// The CPU has NEON and its dot product; the rows are within the matrix.
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn product_dot(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's; the instructions are enabled.
    unsafe { narrow::product::<Neon<Sdot>, PARTS>(job, rows) }
}

/// How products of weights and activations are summed.
trait Dot {
    /// The sums of products of part `part` of a group. Weights are signed bytes: 4-bit ones as they are stored, 8-bit ones
    /// less 128.
    unsafe fn dot<const BITS: usize>(weights: &[int8x16_t; 8], group: &Group, part: usize) -> int32x4_t;
}

/// Part `part` of a plane of activations.
#[inline(always)]
unsafe fn activations(group: &Group, plane: usize, part: usize) -> int8x16_t {
    // SAFETY: a plane has `PARTS` vectors.
    unsafe { vld1q_s8(group.planes[plane].as_ptr().add(4 * WIDTH * part)) }
}

/// What the sums of part `part` of a group begin with.
#[inline(always)]
unsafe fn begin<const BITS: usize>(group: &Group, part: usize) -> int32x4_t {
    // SAFETY: a group's offsets have `PARTS` vectors.
    match BITS {
        4 => unsafe { vld1q_s32(group.offset.as_ptr().add(WIDTH * part)) },
        _ => unsafe { vdupq_n_s32(0) },
    }
}

/// Four products and the sum before them in one instruction.
struct Sdot;

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(weights: &[int8x16_t; 8], group: &Group, part: usize) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe {
            // Two chains: the second sum does not wait for the first.
            let mut dot = [begin::<BITS>(group, part), vdupq_n_s32(0)];
            for plane in 0..4 {
                dot[0] = sdot(dot[0], weights[plane], activations(group, plane, part));
                dot[1] = sdot(dot[1], weights[4 + plane], activations(group, 4 + plane, part));
            }
            vaddq_s32(dot[0], dot[1])
        }
    }
}

/// `sum + (four products of signed bytes)` in each lane. Stable Rust has no name for this instruction.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has the instruction; it reads and writes registers alone.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Products in 16 bits, low and high half of the lanes apart. All of it is exact, since activations are between -127 and 127.
struct Widening;

impl Dot for Widening {
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(weights: &[int8x16_t; 8], group: &Group, part: usize) -> int32x4_t {
        // Products with 0..=15 can be summed over all planes (15,240 at most), those with -128..=127 over two (32,512).
        let planes = if BITS == 4 { 8 } else { 2 };
        // SAFETY: the caller's.
        unsafe {
            let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
            for (first, weights) in weights.chunks_exact(planes).enumerate() {
                let mut products = [vdupq_n_s16(0); 2];
                for (plane, &weights) in weights.iter().enumerate() {
                    let values = activations(group, first * planes + plane, part);
                    products = [
                        vmlal_s8(products[0], vget_low_s8(weights), vget_low_s8(values)),
                        vmlal_high_s8(products[1], weights, values),
                    ];
                }
                (low, high) = (vpadalq_s16(low, products[0]), vpadalq_s16(high, products[1]));
            }
            vaddq_s32(vpaddq_s32(low, high), begin::<BITS>(group, part))
        }
    }
}

struct Neon<D>(PhantomData<D>);

impl<D: Dot> Vectors<PARTS> for Neon<D> {
    type Ints = int8x16_t;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        // SAFETY: the caller's.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn decode<const BITS: usize>(values: *const u8, part: usize) -> [int8x16_t; 8] {
        // SAFETY: the caller's.
        match BITS {
            4 => unsafe { decode4(values, part) },
            _ => unsafe { decode8(values, part) },
        }
    }

    #[inline(always)]
    unsafe fn scales(scales: *const f32, block: usize) -> [float32x4_t; PARTS] {
        // SAFETY: a group has 16, 8 or 4 scales.
        unsafe {
            match block {
                32 => {
                    let float32x4x4_t(a, b, c, d) = vld4q_f32(scales);
                    [a, b, c, d]
                }
                64 => {
                    let float32x4x2_t(a, b) = vld2q_f32(scales);
                    [a, a, b, b]
                }
                _ => [vld1q_f32(scales); PARTS],
            }
        }
    }

    #[inline(always)]
    unsafe fn add<const BITS: usize>(
        weights: &[int8x16_t; 8],
        scales: float32x4_t,
        group: &Group,
        part: usize,
        sum: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: the caller's; a group's scales have `PARTS` vectors.
        unsafe {
            let dot = vcvtq_f32_s32(D::dot::<BITS>(weights, group, part));
            let scale = vmulq_f32(scales, vld1q_f32(group.scale.as_ptr().add(WIDTH * part)));
            vfmaq_f32(sum, dot, scale)
        }
    }

    #[inline(always)]
    unsafe fn sum(lanes: [float32x4_t; PARTS]) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let four = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
}

/// Transposes 4 × 4 words of 32 bits: word `j` of vector `i` becomes word `i` of vector `j`.
#[inline(always)]
unsafe fn transpose(v: [uint32x4_t; 4]) -> [uint8x16_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let pair = |a, b| (vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b));
        let (a, b) = pair(vtrn1q_u32(v[0], v[1]), vtrn2q_u32(v[0], v[1]));
        let (c, d) = pair(vtrn1q_u32(v[2], v[3]), vtrn2q_u32(v[2], v[3]));
        [
            vreinterpretq_u8_u64(vtrn1q_u64(a, c)),
            vreinterpretq_u8_u64(vtrn1q_u64(b, d)),
            vreinterpretq_u8_u64(vtrn2q_u64(a, c)),
            vreinterpretq_u8_u64(vtrn2q_u64(b, d)),
        ]
    }
}

/// 16 bytes at `first` and at each of the three strides behind it, transposed.
#[inline(always)]
unsafe fn load_units(first: *const u8, stride: usize) -> [uint8x16_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut units = [vdupq_n_u32(0); 4];
        for (i, units) in units.iter_mut().enumerate() {
            *units = vreinterpretq_u32_u8(vld1q_u8(first.add(stride * i)));
        }
        transpose(units)
    }
}

/// A unit has 16 bytes: a part takes units `part`, `4 + part`, `8 + part` and `12 + part`.
#[inline(always)]
unsafe fn decode4(values: *const u8, part: usize) -> [int8x16_t; 8] {
    // SAFETY: the caller's; a group has 256 bytes.
    unsafe {
        let words = load_units(values.add(16 * part), 64);
        let mut planes = [vdupq_n_s8(0); 8];
        for (j, word) in words.into_iter().enumerate() {
            planes[j] = vreinterpretq_s8_u8(vandq_u8(word, vdupq_n_u8(15)));
            planes[4 + j] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(word));
        }
        planes
    }
}

/// A unit has 32 bytes, the first half of which gives four planes and the second half the others.
#[inline(always)]
unsafe fn decode8(values: *const u8, part: usize) -> [int8x16_t; 8] {
    // SAFETY: the caller's; a group has 512 bytes.
    unsafe {
        let unit = values.add(32 * part);
        let halves = [load_units(unit, 128), load_units(unit.add(16), 128)];
        let mut planes = [vdupq_n_s8(0); 8];
        for (plane, word) in planes.iter_mut().zip(halves.as_flattened()) {
            *plane = vreinterpretq_s8_u8(veorq_u8(*word, vdupq_n_u8(128)));
        }
        planes
    }
}
