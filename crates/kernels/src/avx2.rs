//! The block product for x86-64 with AVX2 and FMA, with and without VNNI.

#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, Group, LANES};
use crate::narrow::{self, Vectors};

/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 8192;
/// Vectors of a group's lanes.
const PARTS: usize = 2;
/// Lanes of a vector.
const WIDTH: usize = LANES / PARTS;

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// The CPU has AVX2 and FMA; the rows are within the matrix.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn product(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's; the instructions are enabled.
    unsafe { narrow::product::<Avx<Maddubs>, PARTS>(job, rows) }
}

/// As [`product`], with sums of four products in one instruction.
///
/// # Safety
/// The CPU has AVX2, FMA and AVX-VNNI; the rows are within the matrix.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(crate) unsafe fn product_vnni(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's; the instructions are enabled.
    unsafe { narrow::product::<Avx<Vnni<Vex>>, PARTS>(job, rows) }
}

/// As [`product_vnni`], with the instruction as AVX-512 encodes it: so that the code of [`Vnni`] runs in the tests of a
/// machine that has AVX-512 and no AVX-VNNI. Of [`product_vnni`] that leaves one thing untested there: the other encoding
/// of this one instruction.
///
/// # Safety
/// The CPU has AVX2, FMA and AVX-512 VL and VNNI; the rows are within the matrix.
#[cfg(test)]
#[target_feature(enable = "avx2,fma,avx512vl,avx512vnni")]
pub(crate) unsafe fn product_evex(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's; the instructions are enabled.
    unsafe { narrow::product::<Avx<Vnni<Evex>>, PARTS>(job, rows) }
}

/// As [`crate::activations::round_row`].
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn round(bits: Bits, row: &[f32], out: &mut [Group]) {
    crate::activations::round_row(bits, row, out);
}

/// How products of weights and activations are summed.
trait Dot {
    /// The sums of products of part `part` of a group.
    unsafe fn dot<const BITS: usize>(weights: &[__m256i; 8], group: &Group, part: usize) -> __m256i;
}

/// Part `part` of a plane of activations.
#[inline(always)]
unsafe fn activations(group: &Group, plane: usize, part: usize) -> __m256i {
    // SAFETY: a plane has `PARTS` vectors and is aligned.
    unsafe { _mm256_load_si256(group.planes[plane].as_ptr().add(4 * WIDTH * part).cast()) }
}

/// What the sums of part `part` of a group begin with.
#[inline(always)]
unsafe fn offset(group: &Group, part: usize) -> __m256i {
    // SAFETY: a group's offsets have `PARTS` vectors and are aligned.
    unsafe { _mm256_load_si256(group.offset.as_ptr().add(WIDTH * part).cast()) }
}

/// Pairs of products in 16 bits. All of it is exact, since activations are between -127 and 127.
struct Maddubs;

impl Dot for Maddubs {
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(weights: &[__m256i; 8], group: &Group, part: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            if BITS == 4 {
                // Eight pairs of products with 0..=15 are 30,480 at most.
                let mut pairs = _mm256_setzero_si256();
                for (plane, &weights) in weights.iter().enumerate() {
                    let products = _mm256_maddubs_epi16(weights, activations(group, plane, part));
                    pairs = _mm256_add_epi16(pairs, products);
                }
                return _mm256_add_epi32(_mm256_madd_epi16(pairs, ones), offset(group, part));
            }
            // With the weights' sign moved to the activations, a pair of products with 0..=128 is 32,512 at most.
            let mut sums = _mm256_setzero_si256();
            for (plane, &weights) in weights.iter().enumerate() {
                let weights = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
                let signed = _mm256_sign_epi8(activations(group, plane, part), weights);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed);
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
            }
            sums
        }
    }
}

/// Four products and the sum before them in one instruction, without saturation.
struct Vnni<I>(PhantomData<I>);

/// The instruction: `sum + (four products of unsigned and signed bytes)` in each lane.
trait Dpbusd {
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i;
}

struct Vex;

impl Dpbusd for Vex {
    #[inline(always)]
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_avx_epi32(sum, unsigned, signed) }
    }
}

#[cfg(test)]
struct Evex;

#[cfg(test)]
impl Dpbusd for Evex {
    #[inline(always)]
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_epi32(sum, unsigned, signed) }
    }
}

impl<I: Dpbusd> Dot for Vnni<I> {
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(weights: &[__m256i; 8], group: &Group, part: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            // Two chains: the second sum does not wait for the first.
            let mut dot = [offset(group, part), _mm256_setzero_si256()];
            for plane in 0..4 {
                dot[0] = I::dpbusd(dot[0], weights[plane], activations(group, plane, part));
                dot[1] = I::dpbusd(dot[1], weights[4 + plane], activations(group, 4 + plane, part));
            }
            _mm256_add_epi32(dot[0], dot[1])
        }
    }
}

struct Avx<D>(PhantomData<D>);

impl<D: Dot> Vectors<PARTS> for Avx<D> {
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn decode<const BITS: usize>(values: *const u8, part: usize) -> [__m256i; 8] {
        // SAFETY: the caller's.
        match BITS {
            4 => unsafe { decode4(values, part) },
            _ => unsafe { decode8(values, part) },
        }
    }

    #[inline(always)]
    unsafe fn scales(scales: *const f32, block: usize) -> [__m256; PARTS] {
        // SAFETY: a group has 16, 8 or 4 scales.
        unsafe {
            match block {
                32 => {
                    let (low, high) = (_mm256_loadu_ps(scales), _mm256_loadu_ps(scales.add(8)));
                    // Of each four lanes, the first two are units below 8 and the others the same ones of those above.
                    let (a, b) = (_mm256_setr_epi32(0, 4, 0, 4, 1, 5, 1, 5), _mm256_setr_epi32(2, 6, 2, 6, 3, 7, 3, 7));
                    [mix(low, high, a), mix(low, high, b)]
                }
                64 => {
                    let all = _mm256_loadu_ps(scales);
                    let (a, b) = (_mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6), _mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7));
                    [_mm256_permutevar8x32_ps(all, a), _mm256_permutevar8x32_ps(all, b)]
                }
                _ => {
                    let four = _mm_loadu_ps(scales);
                    [_mm256_set_m128(four, four); PARTS]
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add<const BITS: usize>(
        weights: &[__m256i; 8],
        scales: __m256,
        group: &Group,
        part: usize,
        sum: __m256,
    ) -> __m256 {
        // SAFETY: the caller's; a group's scales have `PARTS` vectors and are aligned.
        unsafe {
            let dot = _mm256_cvtepi32_ps(D::dot::<BITS>(weights, group, part));
            let scale = _mm256_mul_ps(scales, _mm256_load_ps(group.scale.as_ptr().add(WIDTH * part)));
            _mm256_fmadd_ps(dot, scale, sum)
        }
    }

    #[inline(always)]
    unsafe fn sum(lanes: [__m256; PARTS]) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let eight = _mm256_add_ps(lanes[0], lanes[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn prefetch(values: *const u8, bytes: usize) {
        for line in 0..bytes / 64 {
            // SAFETY: a prefetch of an address that is not there does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(AHEAD + 64 * line).cast()) };
        }
    }
}

/// Numbers 0, 1, 4 and 5 of `low` at `index`, the others of `high`.
#[inline(always)]
unsafe fn mix(low: __m256, high: __m256, index: __m256i) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let (low, high) = (_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index));
        _mm256_blend_ps::<0b1100_1100>(low, high)
    }
}

/// Transposes 4 × 4 words of 32 bits in each 128-bit half: word `j` of half `h` of vector `i` becomes word `i` of half `h` of
/// vector `j`.
#[inline(always)]
unsafe fn transpose(v: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
        let (lo, hi) = (_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c));
        [lo, hi, _mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d)]
    }
}

/// A unit has 16 bytes: a vector holds units `4i + 2 part` and the next.
#[inline(always)]
unsafe fn decode4(values: *const u8, part: usize) -> [__m256i; 8] {
    // SAFETY: the caller's; a group has 256 bytes.
    unsafe {
        let mut units = [_mm256_setzero_si256(); 4];
        for (i, units) in units.iter_mut().enumerate() {
            *units = _mm256_loadu_si256(values.add(64 * i + 32 * part).cast());
        }
        let words = transpose(units);
        let low = _mm256_set1_epi8(15);
        let mut planes = [low; 8];
        for (j, word) in words.into_iter().enumerate() {
            planes[j] = _mm256_and_si256(word, low);
            planes[4 + j] = _mm256_and_si256(_mm256_srli_epi16::<4>(word), low);
        }
        planes
    }
}

/// A unit has 32 bytes: units `4i + 2 part` and the next give a vector of their first halves and one of their second.
#[inline(always)]
unsafe fn decode8(values: *const u8, part: usize) -> [__m256i; 8] {
    // SAFETY: the caller's; a group has 512 bytes.
    unsafe {
        let mut first = [_mm256_setzero_si256(); 4];
        let mut second = first;
        for i in 0..4 {
            let unit = values.add(128 * i + 64 * part);
            first[i] = _mm256_loadu2_m128i(unit.add(32).cast(), unit.cast());
            second[i] = _mm256_loadu2_m128i(unit.add(48).cast(), unit.add(16).cast());
        }
        let (first, second) = (transpose(first), transpose(second));
        [first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]]
    }
}
