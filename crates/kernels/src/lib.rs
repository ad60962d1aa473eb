//! Block products on the CPU: rows of activations times a matrix of 4-bit or 8-bit weights, read where they are mapped.
//!
//! One file for each instruction set, all equal to [`mod@scalar`] to the last bit: sums of integers are exact, and sums of
//! floating-point numbers are made in one fixed order. So a row's result depends on nothing but the row: not on the other
//! rows of its batch, not on the number of threads, and not on the CPU.
//!
//! Knows nothing of ONNX Runtime.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod contention;
mod dispatch;
mod float;
mod job;
mod layout;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod product;
mod scalar;
mod shared;
#[cfg(test)]
mod tests;

pub use dispatch::Kernels;
pub use float::{
    AttentionScratch, AttentionShape, AttentionStep, RecurrentOutput, RecurrentShape, RecurrentStep, RecurrentWeights,
    Rings, attention, exponentials, gated_gelu, recurrent, soft_cap,
};
pub use layout::{Bits, LayoutError, Matrix, Shape};
pub use pool::Pool;
pub use product::{Scratch, product};
