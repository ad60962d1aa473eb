//! Many rows of activations: the weights of a few rows are decoded once, and multiplied with four rows of activations at a
//! time.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::{Cursor, Steps, prefetch, sum_lanes};
use crate::job::Job;
use crate::layout::{Group, LANES};

/// Rows of each operand that are multiplied with each other in registers.
const TILE: usize = 4;
/// Rows of the matrix that are decoded at a time: few where the activations stay in the first cache, more where reading
/// them again costs more than the second one.
const DECODED: [usize; 2] = [4, 16];
/// Rows of activations from which on more rows are decoded.
const LARGE: usize = 17;

/// One group of decoded weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Decoded {
    planes: [[u8; 4 * LANES]; 8],
    scales: [f32; LANES],
}

thread_local! {
    static DECODED_ROWS: RefCell<Vec<Decoded>> = const { RefCell::new(Vec::new()) };
}

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn product<const BITS: usize>(job: &Job<'_>, rows: Range<usize>) {
    let steps = Steps::new::<BITS>(job.matrix.shape);
    let at_once = DECODED[usize::from(job.m >= LARGE)];
    DECODED_ROWS.with_borrow_mut(|decoded| {
        let needed = at_once * steps.stride;
        if decoded.len() < needed {
            decoded.resize(needed, Decoded { planes: [[0; 4 * LANES]; 8], scales: [0.0; LANES] });
        }
        let mut first = rows.start;
        while first < rows.end {
            let some = first..(first + at_once).min(rows.end);
            // SAFETY: rows within the matrix; there is room for `at_once` of them; the same instructions.
            unsafe {
                for (row, decoded) in some.clone().zip(decoded.chunks_exact_mut(steps.stride)) {
                    decode::<BITS>(job, &steps, row, decoded);
                }
                multiply(job, &steps, &decoded[..needed], some.clone());
            }
            first = some.end;
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn decode<const BITS: usize>(job: &Job<'_>, steps: &Steps, row: usize, out: &mut [Decoded]) {
    let mut cursor = Cursor::new(job, row);
    for (g, out) in out.iter_mut().enumerate() {
        // SAFETY: a row has `whole` groups and `rest` units; all parts of `out` have 64 bytes.
        unsafe {
            prefetch::<BITS>(cursor.values);
            let (planes, scales) = match g < steps.whole {
                true => cursor.decode::<BITS, true>(steps, LANES),
                false => cursor.decode::<BITS, false>(steps, steps.rest),
            };
            for (plane, out) in planes.iter().zip(&mut out.planes) {
                _mm512_store_si512(out.as_mut_ptr().cast(), *plane);
            }
            _mm512_store_ps(out.scales.as_mut_ptr(), scales);
        }
    }
}

/// All rows of activations with the decoded rows `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply(job: &Job<'_>, steps: &Steps, decoded: &[Decoded], rows: Range<usize>) {
    let mut m = 0;
    while m < job.m {
        for (i, decoded) in decoded.chunks_exact(TILE * steps.stride).enumerate() {
            let rows = rows.start + i * TILE..(rows.start + (i + 1) * TILE).min(rows.end);
            if rows.is_empty() {
                break;
            }
            // SAFETY: as many rows of activations as each arm says; the same instructions.
            unsafe {
                match job.m - m {
                    1 => tile::<1>(job, decoded, m, rows),
                    2 => tile::<2>(job, decoded, m, rows),
                    3 => tile::<3>(job, decoded, m, rows),
                    _ => tile::<TILE>(job, decoded, m, rows),
                }
            }
        }
        m += TILE.min(job.m - m);
    }
}

/// `M` rows of activations with four decoded rows of the matrix, of which the first `rows.len()` count.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const M: usize>(job: &Job<'_>, decoded: &[Decoded], m0: usize, rows: Range<usize>) {
    let stride = decoded.len() / TILE;
    let groups = &job.groups[m0 * stride..(m0 + M) * stride];
    let mut sums = [[_mm512_setzero_ps(); M]; TILE];
    for g in 0..stride {
        // SAFETY: both operands have `stride` groups a row; the same instructions.
        unsafe { step(decoded.as_ptr().add(g), groups.as_ptr().add(g), stride, &mut sums) };
    }
    for (row, sums) in rows.zip(sums) {
        for (m, sum) in sums.into_iter().enumerate() {
            job.put(m0 + m, row, sum_lanes(sum));
        }
    }
}

/// Adds the products of one group of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn step<const M: usize>(
    decoded: *const Decoded,
    groups: *const Group,
    stride: usize,
    sums: &mut [[__m512; M]; TILE],
) {
    // SAFETY: the caller's; all parts have 64 bytes and are aligned to them.
    unsafe {
        let weights: [&Decoded; TILE] = std::array::from_fn(|r| &*decoded.add(r * stride));
        let groups: [&Group; M] = std::array::from_fn(|m| &*groups.add(m * stride));
        let offsets: [__m512i; M] = std::array::from_fn(|m| _mm512_load_si512(groups[m].offset.as_ptr().cast()));
        let mut dots = [offsets; TILE];
        for plane in 0..8 {
            let weights: [__m512i; TILE] =
                std::array::from_fn(|r| _mm512_load_si512(weights[r].planes[plane].as_ptr().cast()));
            for m in 0..M {
                let values = _mm512_load_si512(groups[m].planes[plane].as_ptr().cast());
                for r in 0..TILE {
                    dots[r][m] = _mm512_dpbusd_epi32(dots[r][m], weights[r], values);
                }
            }
        }
        for m in 0..M {
            let scale = _mm512_load_ps(groups[m].scale.as_ptr());
            for r in 0..TILE {
                let scale = _mm512_mul_ps(_mm512_load_ps(weights[r].scales.as_ptr()), scale);
                sums[r][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][m]), scale, sums[r][m]);
            }
        }
    }
}
