//! The block product for x86-64 with AVX-512 and VNNI.

#![allow(unsafe_code)]

mod many;

use std::arch::x86_64::*;
use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, GROUP, Group, LANES, Shape, UNIT, scale_index};

/// Rows of activations that are a few.
const FEW: usize = 4;
/// What the first cache holds beside the weights that come through it, in bytes.
const FIRST_CACHE: usize = 28 << 10;
/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 8192;

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn product(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the same instructions.
    match job.matrix.shape.bits() {
        Bits::Four => unsafe { with_bits::<4>(job, rows) },
        Bits::Eight => unsafe { with_bits::<8>(job, rows) },
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn with_bits<const BITS: usize>(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: as many rows of activations as each arm says; the same instructions.
    unsafe {
        match if fits(job) { job.m } else { usize::MAX } {
            1 => all::<BITS, 1>(job, &rows),
            2 => all::<BITS, 2>(job, &rows),
            3 => all::<BITS, 3>(job, &rows),
            4 => all::<BITS, 4>(job, &rows),
            5 => all::<BITS, 5>(job, &rows),
            6 => all::<BITS, 6>(job, &rows),
            7 => all::<BITS, 7>(job, &rows),
            8 => all::<BITS, 8>(job, &rows),
            _ => many::product::<BITS>(job, rows),
        }
    }
}

/// Whether all activations are at hand for every row of the matrix: a few rows always, more as long as they stay in the
/// first cache.
fn fits(job: &Job<'_>) -> bool {
    job.m <= FEW || size_of_val(job.groups) <= FIRST_CACHE
}

/// All `M` rows of activations with one row of the matrix after another: the weights are decoded in registers, and memory
/// is read from one end to the other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all<const BITS: usize, const M: usize>(job: &Job<'_>, rows: &Range<usize>) {
    let steps = Steps::new::<BITS>(job.matrix.shape);
    for row in rows.clone() {
        // SAFETY: rows within the matrix; the same instructions.
        unsafe { tile::<BITS, M>(job, &steps, row) };
    }
}

/// Where the next group of a matrix row lies.
#[derive(Clone, Copy)]
struct Cursor {
    values: *const u8,
    scales: *const f32,
}

/// What all groups of a product have in common.
#[derive(Clone, Copy)]
struct Steps {
    /// Bytes of a group's values.
    values: usize,
    /// Scales of a group.
    scales: usize,
    /// Where each lane's scale lies among them.
    index: __m512i,
    /// The scales of a whole group.
    scale_mask: u16,
    /// Groups from one row of activations to the next.
    stride: usize,
    /// Whole groups of a row.
    whole: usize,
    /// Units of the group behind them.
    rest: usize,
}

impl Steps {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new<const BITS: usize>(shape: Shape) -> Self {
        let scales = GROUP / shape.block();
        Self {
            values: 64 * BITS,
            scales,
            // SAFETY: 16 integers.
            index: unsafe { _mm512_loadu_si512(scale_index(shape.block()).as_ptr().cast()) },
            scale_mask: ((1u32 << scales) - 1) as u16,
            stride: shape.groups(),
            whole: shape.columns() / GROUP,
            rest: shape.columns() % GROUP / UNIT,
        }
    }
}

impl Cursor {
    fn new(job: &Job<'_>, row: usize) -> Self {
        let shape = job.matrix.shape;
        Self {
            values: job.matrix.values[row * shape.row_bytes()..].as_ptr(),
            scales: job.matrix.scales[row * shape.row_scales()..].as_ptr(),
        }
    }

    /// The next group, decoded, plane by plane as [`Group`] has the activations, and its lanes' scales.
    ///
    /// # Safety
    /// The row has `units` more, 16 if `WHOLE`; the CPU has the instructions.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn decode<const BITS: usize, const WHOLE: bool>(
        &mut self,
        steps: &Steps,
        units: usize,
    ) -> ([__m512i; 8], __m512) {
        // SAFETY: the caller's.
        unsafe {
            let scales = load_scales::<WHOLE>(self.scales, steps, units);
            let weights = match BITS {
                4 => decode4::<WHOLE>(self.values, units),
                _ => decode8::<WHOLE>(self.values, units),
            };
            if WHOLE {
                self.values = self.values.add(steps.values);
                self.scales = self.scales.add(steps.scales);
            }
            (weights, scales)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const BITS: usize, const M: usize>(job: &Job<'_>, steps: &Steps, row: usize) {
    let mut cursor = Cursor::new(job, row);
    let mut groups = job.groups.as_ptr();
    let mut sums = [_mm512_setzero_ps(); M];
    // SAFETY: a row has `whole` groups and `rest` units; there are as many groups of activations; the same instructions.
    unsafe {
        for _ in 0..steps.whole {
            prefetch::<BITS>(cursor.values);
            let (weights, scales) = cursor.decode::<BITS, true>(steps, LANES);
            add(&weights, scales, groups, steps.stride, &mut sums);
            groups = groups.add(1);
        }
        if steps.rest > 0 {
            let (weights, scales) = cursor.decode::<BITS, false>(steps, steps.rest);
            add(&weights, scales, groups, steps.stride, &mut sums);
        }
    }
    for (m, sum) in sums.into_iter().enumerate() {
        job.put(m, row, sum_lanes(sum));
    }
}

/// Adds the products with one group of each row of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add<const M: usize>(
    weights: &[__m512i; 8],
    scales: __m512,
    groups: *const Group,
    stride: usize,
    sums: &mut [__m512; M],
) {
    for (m, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *sum = unsafe { multiply(weights, scales, &*groups.add(m * stride), *sum) };
    }
}

/// Asks for the weights that come next.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn prefetch<const BITS: usize>(values: *const u8) {
    for line in 0..BITS {
        // A prefetch of an address that is not there does nothing.
        _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(AHEAD + 64 * line).cast());
    }
}

/// `sum + (products of each lane) · (scale of the weights · scale of the activations)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply(weights: &[__m512i; 8], scales: __m512, group: &Group, sum: __m512) -> __m512 {
    // SAFETY: a group's parts have 64 bytes each.
    unsafe {
        // Two chains: the second sum does not wait for the first.
        let plane = |j: usize| _mm512_load_si512(group.planes[j].as_ptr().cast());
        let mut dot = [_mm512_load_si512(group.offset.as_ptr().cast()), _mm512_setzero_si512()];
        for j in 0..4 {
            dot[0] = _mm512_dpbusd_epi32(dot[0], weights[j], plane(j));
            dot[1] = _mm512_dpbusd_epi32(dot[1], weights[4 + j], plane(4 + j));
        }
        let dot = _mm512_add_epi32(dot[0], dot[1]);
        let scale = _mm512_mul_ps(scales, _mm512_load_ps(group.scale.as_ptr()));
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum)
    }
}

/// The scales of a group's lanes; 0 where the row has ended.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn load_scales<const WHOLE: bool>(from: *const f32, steps: &Steps, units: usize) -> __m512 {
    let mask = match WHOLE {
        true => steps.scale_mask,
        false => ((1u32 << (units * steps.scales / LANES)) - 1) as u16,
    };
    // SAFETY: the mask leaves out what lies behind the row's end.
    let scales = unsafe { _mm512_maskz_loadu_ps(mask, from) };
    _mm512_permutexvar_ps(steps.index, scales)
}

/// 64 bytes of a group that has `parts` of 16 bytes, or all of them; zero where the row has ended.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn load<const WHOLE: bool>(from: *const u8, vector: usize, parts: usize) -> __m512i {
    // SAFETY: the caller's; the mask leaves out what lies behind the row's end.
    unsafe {
        let from = from.add(64 * vector);
        if WHOLE {
            return _mm512_loadu_si512(from.cast());
        }
        let present = parts.saturating_sub(4 * vector).min(4);
        _mm512_maskz_loadu_epi32(((1u32 << (4 * present)) - 1) as u16, from.cast())
    }
}

/// Transposes 4 × 4 words of 32 bits in each 128-bit part: word `j` of part `p` of vector `i` becomes word `i` of part `p` of
/// vector `j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn transpose(v: [__m512i; 4]) -> [__m512i; 4] {
    let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    [_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)]
}

/// A group of 4-bit weights, plane by plane as [`Group`] has the activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn decode4<const WHOLE: bool>(from: *const u8, units: usize) -> [__m512i; 8] {
    // SAFETY: the caller's.
    let v = unsafe {
        let at = |i: usize| load::<WHOLE>(from, i, units);
        [at(0), at(1), at(2), at(3)]
    };
    let words = transpose(v);
    let low = _mm512_set1_epi8(15);
    let mut planes = [low; 8];
    for (j, word) in words.into_iter().enumerate() {
        planes[j] = _mm512_and_si512(word, low);
        planes[4 + j] = _mm512_and_si512(_mm512_srli_epi16::<4>(word), low);
    }
    planes
}

/// A group of 8-bit weights, plane by plane as [`Group`] has the activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn decode8<const WHOLE: bool>(from: *const u8, units: usize) -> [__m512i; 8] {
    // A unit has 32 bytes: two parts of 128 bits. Vectors 0, 2, 4, 6 hold units 4i and 4i + 1, the others 4i + 2 and 4i + 3.
    // SAFETY: the caller's; a unit is two parts.
    let (even, odd) = unsafe {
        let at = |i: usize| load::<WHOLE>(from, i, 2 * units);
        (transpose([at(0), at(2), at(4), at(6)]), transpose([at(1), at(3), at(5), at(7)]))
    };
    let mut planes = [even[0]; 8];
    for j in 0..4 {
        planes[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even[j], odd[j]);
        planes[4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even[j], odd[j]);
    }
    planes
}

/// As [`crate::layout::sum_lanes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_lanes(lanes: __m512) -> f32 {
    let low = _mm512_castps512_ps256(lanes);
    let high = _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(_mm512_castps_si512(lanes)));
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// As [`crate::activations::round_row`].
///
/// # Safety
/// The CPU has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn round(bits: Bits, row: &[f32], out: &mut [Group]) {
    crate::activations::round_row(bits, row, out);
}
