//! The block product for vectors of 128 and 256 bits, written once for all instruction sets that have them.
//!
//! A group's lanes are cut into `PARTS` vectors. An instruction set says how it decodes weights and multiplies them
//! ([`Vectors`]); the loops over rows and groups are here. All of it is inlined into one function for each instruction set,
//! which has its instructions enabled.

#![allow(unsafe_code)]

mod many;

use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, GROUP, Group, LANES, Shape, UNIT};

/// What an instruction set gives: vectors with a `PARTS`th of a group's lanes.
///
/// Every function here needs the CPU to have the instructions, and memory as each one says; nothing need be aligned but
/// [`Group`] and [`Plane`]s.
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

    /// One part of a plane from memory.
    unsafe fn load(plane: &Plane, part: usize) -> Self::Ints;

    /// One part of a plane to memory.
    unsafe fn store(plane: &mut Plane, part: usize, values: Self::Ints);

    /// One part of the lanes' numbers from memory.
    unsafe fn load_floats(lanes: &[f32; LANES], part: usize) -> Self::Floats;

    /// One part of the lanes' numbers to memory.
    unsafe fn store_floats(lanes: &mut [f32; LANES], part: usize, values: Self::Floats);

    /// Asks for the `bytes` of weights that come a while behind `values`, where the CPU does not do so by itself.
    #[inline(always)]
    fn prefetch(_values: *const u8, _bytes: usize) {}
}

/// Decoded weights of one plane: four bytes for each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Plane(pub(crate) [u8; 4 * LANES]);

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

#[inline(always)]
unsafe fn with_bits<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize>(job: &Job<'_>, rows: Range<usize>) {
    // SAFETY: as many rows of activations as each arm says; else the caller's.
    unsafe {
        match job.m {
            1 => few::<V, PARTS, BITS, 1>(job, rows),
            2 => few::<V, PARTS, BITS, 2>(job, rows),
            3 => few::<V, PARTS, BITS, 3>(job, rows),
            4 => few::<V, PARTS, BITS, 4>(job, rows),
            _ => many::product::<V, PARTS, BITS>(job, rows),
        }
    }
}

/// All `M` rows of activations with one row of the matrix after another: the weights are decoded in registers, and memory
/// is read from one end to the other.
#[inline(always)]
unsafe fn few<V: Vectors<PARTS>, const PARTS: usize, const BITS: usize, const M: usize>(
    job: &Job<'_>,
    rows: Range<usize>,
) {
    let mut source = Source::new(job.matrix.shape);
    for row in rows {
        source.begin(job, row);
        // SAFETY: the row is within the matrix and has as many groups as a row of activations; else the caller's.
        unsafe {
            let mut sums = [[V::zero(); PARTS]; M];
            for g in 0..source.groups {
                let (values, scales) = source.next::<BITS>(job, row, g);
                V::prefetch(values, 64 * BITS);
                for (part, scales) in V::scales(scales, source.block).into_iter().enumerate() {
                    let weights = V::decode::<BITS>(values, part);
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let group = &*job.groups.as_ptr().add(m * source.groups + g);
                        sums[part] = V::add::<BITS>(&weights, scales, group, part, sums[part]);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate() {
                job.put(m, row, V::sum(sums));
            }
        }
    }
}

/// Walks over the groups of matrix rows. The units behind the last whole group are copied to a group of their own, whose
/// other units are zero.
struct Source {
    /// Groups of a row.
    groups: usize,
    /// Whole ones among them.
    whole: usize,
    /// Values that share a scale.
    block: usize,
    values: *const u8,
    scales: *const f32,
    last_values: [u8; GROUP],
    last_scales: [f32; LANES],
}

impl Source {
    #[inline(always)]
    fn new(shape: Shape) -> Self {
        Self {
            groups: shape.groups(),
            whole: shape.columns() / GROUP,
            block: shape.block(),
            values: std::ptr::null(),
            scales: std::ptr::null(),
            last_values: [0; GROUP],
            last_scales: [0.0; LANES],
        }
    }

    /// Goes to the row's first group.
    #[inline(always)]
    fn begin(&mut self, job: &Job<'_>, row: usize) {
        let shape = job.matrix.shape;
        self.values = job.matrix.values[row * shape.row_bytes()..].as_ptr();
        self.scales = job.matrix.scales[row * shape.row_scales()..].as_ptr();
    }

    /// The values and scales of group `g` of the row, which come after those of the last call.
    ///
    /// # Safety
    /// The row has been begun; `g` grows by one from 0 and is below `groups`.
    #[inline(always)]
    unsafe fn next<const BITS: usize>(&mut self, job: &Job<'_>, row: usize, g: usize) -> (*const u8, *const f32) {
        if g == self.whole {
            return self.last(job, row);
        }
        let at = (self.values, self.scales);
        // SAFETY: a whole group has 512 values, so that both end within the row or right behind it.
        unsafe {
            self.values = self.values.add(GROUP / 8 * BITS);
            self.scales = self.scales.add(GROUP / self.block);
        }
        at
    }

    #[inline(never)]
    fn last(&mut self, job: &Job<'_>, row: usize) -> (*const u8, *const f32) {
        let shape = job.matrix.shape;
        let rest = shape.columns() % GROUP;
        let values = &job.matrix.values[..(row + 1) * shape.row_bytes()];
        let values = &values[values.len() - shape.bits().bytes(rest)..];
        let scales = &job.matrix.scales[..(row + 1) * shape.row_scales()];
        let scales = &scales[scales.len() - rest / shape.block()..];
        self.last_values[..values.len()].copy_from_slice(values);
        self.last_scales[..scales.len()].copy_from_slice(scales);
        (self.last_values.as_ptr(), self.last_scales.as_ptr())
    }
}

const _: () = assert!(GROUP == UNIT * LANES && size_of::<Plane>() == 64);
