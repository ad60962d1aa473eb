//! Many rows of activations: the weights of a few rows are decoded once, and multiplied with four rows of activations at a
//! time.

use std::cell::RefCell;
use std::ops::Range;

use super::{Plane, Source, Vectors};
use crate::job::Job;
use crate::layout::LANES;

/// Rows of the matrix that are decoded at a time: they stay in the first cache.
const ROWS: usize = 4;
/// Rows of activations that a decoded row is multiplied with at a time.
const TILE: usize = 4;

/// One group of decoded weights.
#[derive(Clone, Copy)]
struct Decoded {
    planes: [Plane; 8],
    scales: [f32; LANES],
}

impl Decoded {
    const EMPTY: Decoded = Decoded { planes: [Plane([0; 4 * LANES]); 8], scales: [0.0; LANES] };
}

thread_local! {
    static DECODED_ROWS: RefCell<Vec<Decoded>> = const { RefCell::new(Vec::new()) };
}

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// As [`super::product`].
#[inline(always)]
pub(super) unsafe fn product<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize>(
    job: &Job<'_>,
    rows: Range<usize>,
) {
    let mut source = Source::new(job.matrix.shape);
    let stride = source.groups;
    // Taken and put back: what is called from a closure would be compiled without the caller's instructions.
    let mut decoded = DECODED_ROWS.take();
    if decoded.len() < ROWS * stride {
        decoded.resize(ROWS * stride, Decoded::EMPTY);
    }
    for first in rows.clone().step_by(ROWS) {
        let some = first..(first + ROWS).min(rows.end);
        // SAFETY: the rows are within the matrix; there are as many rows of activations as each arm says; else the caller's.
        unsafe {
            for row in some.clone() {
                let from = (row - first) * stride;
                decode::<V, PARTS, BITS>(job, &mut source, row, &mut decoded[from..from + stride]);
            }
            for m in (0..job.m).step_by(TILE) {
                match job.m - m {
                    1 => tile::<V, PARTS, BITS, 1>(job, &decoded, m, some.clone()),
                    2 => tile::<V, PARTS, BITS, 2>(job, &decoded, m, some.clone()),
                    3 => tile::<V, PARTS, BITS, 3>(job, &decoded, m, some.clone()),
                    _ => tile::<V, PARTS, BITS, TILE>(job, &decoded, m, some.clone()),
                }
            }
        }
    }
    DECODED_ROWS.set(decoded);
}

#[inline(always)]
unsafe fn decode<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize>(
    job: &Job<'_>,
    source: &mut Source,
    row: usize,
    out: &mut [Decoded],
) {
    source.begin(job, row);
    for (g, out) in out.iter_mut().enumerate() {
        // SAFETY: as many groups as the row has; else the caller's.
        unsafe {
            let (values, scales) = source.next::<BITS>(job, row, g);
            V::prefetch(values, 64 * BITS);
            for (part, scales) in V::scales(scales, source.block).into_iter().enumerate() {
                let weights = V::decode::<BITS>(values, part);
                for (plane, weights) in out.planes.iter_mut().zip(weights) {
                    V::store(plane, part, weights);
                }
                V::store_floats(&mut out.scales, part, scales);
            }
        }
    }
}

/// `M` rows of activations from `m0` on with the decoded rows `rows`, four at most.
#[inline(always)]
unsafe fn tile<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize, const M: usize>(
    job: &Job<'_>,
    decoded: &[Decoded],
    m0: usize,
    rows: Range<usize>,
) {
    let stride = job.matrix.shape.groups();
    let groups = &job.groups[m0 * stride..(m0 + M) * stride];
    let decoded = &decoded[..rows.len() * stride];
    // SAFETY: both operands have `stride` groups a row; else the caller's.
    unsafe {
        let mut sums = [[[V::zero(); PARTS]; M]; ROWS];
        for g in 0..stride {
            for (r, sums) in sums.iter_mut().enumerate().take(rows.len()) {
                let decoded = &*decoded.as_ptr().add(r * stride + g);
                for part in 0..PARTS {
                    let mut weights = [V::load(&decoded.planes[0], part); 8];
                    for (weights, plane) in weights.iter_mut().zip(&decoded.planes).skip(1) {
                        *weights = V::load(plane, part);
                    }
                    let scales = V::load_floats(&decoded.scales, part);
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let group = &*groups.as_ptr().add(m * stride + g);
                        sums[part] = V::add::<BITS>(&weights, scales, group, part, sums[part]);
                    }
                }
            }
        }
        for (row, sums) in rows.zip(sums) {
            for (m, sums) in sums.into_iter().enumerate() {
                job.put(m0 + m, row, V::sum(sums));
            }
        }
    }
}
