//! Which kernels this machine can run.

#![allow(unsafe_code)]

use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, Group};
use crate::{activations, scalar};

type Product = unsafe fn(&Job<'_>, Range<usize>);
type Round = unsafe fn(Bits, &[f32], &mut [Group]);

/// The kernels of one instruction set. A value exists only where the CPU has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    name: &'static str,
    product: Product,
    round: Round,
}

impl Kernels {
    /// The fastest that this CPU can run.
    pub fn best() -> Self {
        // The last resort needs nothing, so there is always one.
        Self::available().into_iter().next().unwrap_or(SCALAR)
    }

    /// All that this CPU can run, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = by_machine();
        kernels.push(SCALAR);
        kernels
    }

    /// The instruction set's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Computes rows `rows` of the job.
    pub(crate) fn product(&self, job: &Job<'_>, rows: Range<usize>) {
        assert!(rows.end <= job.matrix.shape.rows(), "rows of the matrix");
        // SAFETY: the CPU has the instructions, or there would be no such value; the rows are within the matrix, whose
        // slices have the sizes of its shape.
        unsafe { (self.product)(job, rows) }
    }

    /// Rounds one row of activations.
    pub(crate) fn round(&self, bits: Bits, row: &[f32], out: &mut [Group]) {
        // SAFETY: the CPU has the instructions.
        unsafe { (self.round)(bits, row, out) }
    }
}

const SCALAR: Kernels = Kernels { name: "scalar", product: scalar::product, round: activations::round_row };

#[cfg(target_arch = "x86_64")]
fn by_machine() -> Vec<Kernels> {
    let mut kernels = Vec::new();
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    if avx512 {
        kernels.push(Kernels { name: "avx512-vnni", product: crate::avx512::product, round: crate::avx512::round });
    }
    kernels
}

#[cfg(not(target_arch = "x86_64"))]
fn by_machine() -> Vec<Kernels> {
    Vec::new()
}
