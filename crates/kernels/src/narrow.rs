//! The block product for vectors of 128 and 256 bits, written once for all instruction sets that have them.
//!
//! A group's lanes are cut into `PARTS` vectors. An instruction set says how it decodes weights and multiplies them
//! ([`Vectors`]); the loops over rows and groups are here. All of it is inlined into one function for each instruction set,
//! which has its instructions enabled.

#![allow(unsafe_code)]

use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, GROUP, Group, LANES};

/// Rows of activations that decoded weights are multiplied with at most.
const TILE: usize = 8;
/// Rows of the matrix that a tile's activations are multiplied with while they stay in the first cache.
const ROWS: usize = 8;
/// What the first cache holds of a tile's activations, in bytes.
const FIRST_CACHE: usize = 20 << 10;

/// What an instruction set gives: vectors with a `PARTS`th of a group's lanes.
///
/// Every function here needs the CPU to have the instructions, and memory as each one says; nothing but a [`Group`] need be
/// aligned.
pub(crate) trait Vectors<const PARTS: usize> {
    /// Weights of one plane, or 32-bit sums: four bytes a lane.
    type Ints: Copy;
    /// One number a lane.
    type Floats: Copy;

    /// Zeros.
    unsafe fn zero() -> Self::Floats;

    /// Part `part` of a whole group's weights, plane by plane as [`Group`] has the activations.
    unsafe fn decode<const BITS: usize>(values: *const u8, part: usize) -> [Self::Ints; 8];

    /// The scales of a whole group's lanes, from its `GROUP / block` scales.
    unsafe fn scales(scales: *const f32, block: usize) -> [Self::Floats; PARTS];

    /// `sum + (products of each lane) · (scale of the weights · scale of the activations)`.
    unsafe fn add<const BITS: usize>(
        weights: &[Self::Ints; 8],
        scales: Self::Floats,
        group: &Group,
        part: usize,
        sum: Self::Floats,
    ) -> Self::Floats;

    /// As [`crate::layout::sum_lanes`].
    unsafe fn sum(lanes: [Self::Floats; PARTS]) -> f32;

    /// Asks for the `bytes` of weights that come a while behind `values`, where the CPU does not do so by itself.
    #[inline(always)]
    fn prefetch(_values: *const u8, _bytes: usize) {}
}

/// The products of rows `rows` of the matrix with all rows of activations.
///
/// # Safety
/// The CPU has the instructions of `V`, and the caller has them enabled; the rows are within the matrix.
#[inline(always)]
pub(crate) unsafe fn product<V: Vectors<PARTS>, const PARTS: usize>(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: the caller's.
    match job.matrix.shape.bits() {
        Bits::Four => unsafe { with_bits::<V, PARTS, 4>(job, rows) },
        Bits::Eight => unsafe { with_bits::<V, PARTS, 8>(job, rows) },
    }
}

/// All rows of activations, in tiles of about the same size, with a few rows of the matrix at a time.
#[inline(always)]
unsafe fn with_bits<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize>(job: &Job<'_>, rows: Range<usize>) {
    let size = job.m.div_ceil(job.m.div_ceil(TILE).max(1)).max(1);
    let mut source = Source { values: [0; GROUP], scales: [0.0; LANES] };
    for first in rows.clone().step_by(ROWS) {
        let rows = first..(first + ROWS).min(rows.end);
        for m in (0..job.m).step_by(size) {
            let (source, rows) = (&mut source, rows.clone());
            // SAFETY: as many rows of activations from `m` on as each arm says; else the caller's.
            unsafe {
                match size.min(job.m - m) {
                    1 => tile::<V, PARTS, BITS, 1>(job, source, rows, m),
                    2 => tile::<V, PARTS, BITS, 2>(job, source, rows, m),
                    3 => tile::<V, PARTS, BITS, 3>(job, source, rows, m),
                    4 => tile::<V, PARTS, BITS, 4>(job, source, rows, m),
                    5 => tile::<V, PARTS, BITS, 5>(job, source, rows, m),
                    6 => tile::<V, PARTS, BITS, 6>(job, source, rows, m),
                    7 => tile::<V, PARTS, BITS, 7>(job, source, rows, m),
                    _ => tile::<V, PARTS, BITS, TILE>(job, source, rows, m),
                }
            }
        }
    }
}

/// `M` rows of activations from `m0` on with eight rows of the matrix at most: weights are decoded in registers. As many
/// groups at a time as the first cache holds of the activations; with one row of them that is the whole row, and memory is
/// read from one end to the other.
#[inline(always)]
unsafe fn tile<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize, const M: usize>(
    job: &Job<'_>,
    source: &mut Source,
    rows: Range<usize>,
    m0: usize,
) {
    let stride = job.matrix.shape.groups();
    let at_once = (FIRST_CACHE / size_of::<Group>() / M).max(1);
    let groups = job.groups[m0 * stride..(m0 + M) * stride].as_ptr();
    // SAFETY: a row has `stride` groups; else the caller's.
    unsafe {
        let mut all = [[[V::zero(); PARTS]; M]; ROWS];
        for first in (0..stride).step_by(at_once) {
            for (row, all) in rows.clone().zip(&mut all) {
                let mut sums = *all;
                for g in first..(first + at_once).min(stride) {
                    let (values, scales) = source.group::<BITS>(job, row, g);
                    V::prefetch(values, 64 * BITS);
                    for (part, scales) in V::scales(scales, job.matrix.shape.block()).into_iter().enumerate() {
                        let weights = V::decode::<BITS>(values, part);
                        for (m, sums) in sums.iter_mut().enumerate() {
                            let group = &*groups.add(m * stride + g);
                            sums[part] = V::add::<BITS>(&weights, scales, group, part, sums[part]);
                        }
                    }
                }
                *all = sums;
            }
        }
        for (row, sums) in rows.zip(all) {
            for (m, sums) in sums.into_iter().enumerate() {
                job.put(m0 + m, row, V::sum(sums));
            }
        }
    }
}

/// Where a group's values and scales lie. Those of a row's last group, if it is no whole one, are copied here; what is
/// behind them stays zero.
struct Source {
    values: [u8; GROUP],
    scales: [f32; LANES],
}

impl Source {
    /// The values and scales of a whole group.
    ///
    /// # Safety
    /// The row is within the matrix and has more than `g` groups.
    #[inline(always)]
    unsafe fn group<const BITS: usize>(&mut self, job: &Job<'_>, row: usize, g: usize) -> (*const u8, *const f32) {
        let shape = job.matrix.shape;
        if g == shape.columns() / GROUP {
            return self.last(job, row);
        }
        let value = row * shape.columns() + g * GROUP;
        // SAFETY: the group lies within the row.
        unsafe {
            let values = job.matrix.values.as_ptr().add(shape.bits().bytes(value));
            (values, job.matrix.scales.as_ptr().add(value / shape.block()))
        }
    }

    #[inline(never)]
    fn last(&mut self, job: &Job<'_>, row: usize) -> (*const u8, *const f32) {
        let shape = job.matrix.shape;
        let rest = shape.columns() % GROUP;
        let values = &job.matrix.values[..(row + 1) * shape.row_bytes()];
        let values = &values[values.len() - shape.bits().bytes(rest)..];
        let scales = &job.matrix.scales[..(row + 1) * shape.row_scales()];
        let scales = &scales[scales.len() - rest / shape.block()..];
        self.values[..values.len()].copy_from_slice(values);
        self.scales[..scales.len()].copy_from_slice(scales);
        (self.values.as_ptr(), self.scales.as_ptr())
    }
}
