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
    use crate::{avx2, avx512};

    let mut kernels = Vec::new();
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
    {
        kernels.push(Kernels { name: "avx512-vnni", product: avx512::product, round: avx512::round });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avxvnni") {
            kernels.push(Kernels { name: "avx-vnni", product: avx2::product_vnni, round: avx2::round });
        }
        kernels.push(Kernels { name: "avx2", product: avx2::product, round: avx2::round });
    }
    kernels
}

#[cfg(target_arch = "aarch64")]
fn by_machine() -> Vec<Kernels> {
    use std::arch::is_aarch64_feature_detected;

    use crate::neon;

    let mut kernels = Vec::new();
    if is_aarch64_feature_detected!("neon") {
        // The compiler uses NEON for the portable rounding as it is.
        let round = activations::round_row;
        if is_aarch64_feature_detected!("dotprod") {
            kernels.push(Kernels { name: "neon-dotprod", product: neon::product_dot, round });
        }
        kernels.push(Kernels { name: "neon", product: neon::product, round });
    }
    kernels
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn by_machine() -> Vec<Kernels> {
    Vec::new()
}

#[cfg(test)]
impl Kernels {
    /// All that this CPU can run, and what stands in for AVX-VNNI where the CPU has AVX-512 only.
    pub(crate) fn tested() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut kernels = Self::available();
        #[cfg(target_arch = "x86_64")]
        if kernels[0].name == "avx512-vnni" {
            kernels.push(Kernels {
                name: "avx-vnni-evex",
                product: crate::avx2::product_evex,
                round: crate::avx2::round,
            });
        }
        kernels
    }
}
