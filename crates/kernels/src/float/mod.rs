//! What lies between two products, in f32: the same plain code compiled for each instruction set. Every sum is made in one
//! fixed order, so that all give the same bits.

#![allow(unsafe_code)]

mod attention;
mod attention_block;
mod attention_step;
mod elementwise;
mod gates;
mod lanes;
mod math;
mod recurrent;
mod recurrent_step;

pub use attention::AttentionShape;
pub use attention_step::{AttentionScratch, AttentionStep, Rings, attention};
pub use recurrent::{RecurrentShape, RecurrentWeights};
pub use recurrent_step::{RecurrentOutput, RecurrentStep, recurrent};
#[cfg(test)]
pub(crate) use {attention_step::attention_with, recurrent_step::recurrent_with};

use std::sync::OnceLock;

use attention::Partial;
use attention_block::Queries;
use recurrent::{Head, HeadOutput, HeadScratch};

use crate::pool::Pool;
use crate::shared::SharedSlice;

/// See [`attention::rotate`].
type Rotate = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);
/// See [`attention_block::block`].
type Block = unsafe fn(Queries<'_>, [&[f32]; 2], [usize; 2], &mut [f32], &mut [Partial], &mut [f32]);

/// The functions of one instruction set. A value exists only where the CPU has the instructions.
#[derive(Clone, Copy)]
pub(crate) struct Floats {
    pub(crate) name: &'static str,
    head: unsafe fn(&Head<'_>, &mut HeadOutput<'_>, &mut HeadScratch),
    gated_gelu: unsafe fn(&[f32], &mut [f32]),
    soft_cap: unsafe fn(f32, &[f32], &mut [f32]),
    exponentials: unsafe fn(f32, f32, &mut [f32]),
    rotate: Rotate,
    block: Block,
    join: unsafe fn(&mut Partial, &mut [f32], Partial, &[f32]),
}

impl std::fmt::Debug for Floats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The functions, compiled with the given instructions and their registers.
macro_rules! compiled {
    ($module:ident, $name:literal, $lanes:ident $(, $features:literal)?) => {
        mod $module {
            use super::lanes::{$lanes, Lanes};
            use super::{
                Floats, Head, HeadOutput, HeadScratch, Partial, Queries, attention, attention_block, elementwise, recurrent,
            };

            pub(super) const FLOATS: Floats = Floats {
                name: $name,
                head,
                gated_gelu,
                soft_cap,
                exponentials,
                rotate,
                block,
                join,
            };

            $(#[target_feature(enable = $features)])?
            unsafe fn head(input: &Head<'_>, out: &mut HeadOutput<'_>, scratch: &mut HeadScratch) {
                recurrent::head::<$lanes, { $lanes::TILE }>(input, out, scratch);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn gated_gelu(branches: &[f32], y: &mut [f32]) {
                elementwise::gated_gelu(branches, y);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn soft_cap(cap: f32, x: &[f32], y: &mut [f32]) {
                elementwise::soft_cap(cap, x, y);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn exponentials(most: f32, scale: f32, x: &mut [f32]) {
                elementwise::exponentials(most, scale, x);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn rotate(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
                attention::rotate(x, cos, sin, scale, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn block(
                queries: Queries<'_>,
                ring: [&[f32]; 2],
                slots: [usize; 2],
                scores: &mut [f32],
                partials: &mut [Partial],
                mix: &mut [f32],
            ) {
                attention_block::block::<$lanes, { $lanes::TILE }>(queries, ring, slots, scores, partials, mix);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn join(all: &mut Partial, mix: &mut [f32], other: Partial, other_mix: &[f32]) {
                attention::join(all, mix, other, other_mix);
            }
        }
    };
}

#[cfg(not(target_arch = "aarch64"))]
compiled!(plain, "plain", Plain);
// Which has vectors and fused multiply-adds without asking.
#[cfg(target_arch = "aarch64")]
compiled!(plain, "neon", Neon);
#[cfg(target_arch = "x86_64")]
compiled!(avx2, "avx2", Avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
compiled!(avx512, "avx512", Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma");

impl Floats {
    /// The best that this CPU can run.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Floats> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().into_iter().next().unwrap_or(plain::FLOATS))
    }

    /// All that this CPU can run, the best first.
    pub(crate) fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if fma && wide {
                all.push(avx512::FLOATS);
            }
            if fma {
                all.push(avx2::FLOATS);
            }
        }
        all.push(plain::FLOATS);
        all
    }

    fn head(&self, input: &Head<'_>, out: &mut HeadOutput<'_>, scratch: &mut HeadScratch) {
        // SAFETY: here and below, the CPU has the instructions, or there would be no such value.
        unsafe { (self.head)(input, out, scratch) }
    }

    pub(crate) fn gated_gelu(&self, branches: &[f32], y: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.gated_gelu)(branches, y) }
    }

    pub(crate) fn soft_cap(&self, cap: f32, x: &[f32], y: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.soft_cap)(cap, x, y) }
    }

    pub(crate) fn exponentials(&self, most: f32, scale: f32, x: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.exponentials)(most, scale, x) }
    }

    fn rotate(&self, x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.rotate)(x, cos, sin, scale, out) }
    }

    fn block(
        &self,
        queries: Queries<'_>,
        ring: [&[f32]; 2],
        slots: [usize; 2],
        scores: &mut [f32],
        partials: &mut [Partial],
        mix: &mut [f32],
    ) {
        // SAFETY: as above.
        unsafe { (self.block)(queries, ring, slots, scores, partials, mix) }
    }

    fn join(&self, all: &mut Partial, mix: &mut [f32], other: Partial, other_mix: &[f32]) {
        // SAFETY: as above.
        unsafe { (self.join)(all, mix, other, other_mix) }
    }
}

/// Values that are worth another part: fewer are done before another thread has woken.
const PART: usize = 8192;

/// `y [rows, width] = gelu_tanh(gate) · up` for `branches [rows, 2 · width]`, `gate` beside `up`.
///
/// # Panics
/// If `branches` has not twice the values of `y`, or `y` is no whole number of rows.
pub fn gated_gelu(pool: &mut Pool, branches: &[f32], y: &mut [f32], width: usize) {
    assert_eq!(branches.len(), 2 * y.len(), "two branches for each value");
    assert!(width > 0 && y.len().is_multiple_of(width), "whole rows");
    let (floats, rows) = (Floats::best(), y.len() / width);
    let each = (PART / width).max(1);
    let y = SharedSlice::new(y);
    pool.run(rows.div_ceil(each), &|part| {
        for row in part * each..((part + 1) * each).min(rows) {
            // SAFETY: each row is one part's.
            let y = unsafe { y.part(row * width, width) };
            floats.gated_gelu(&branches[row * 2 * width..][..2 * width], y);
        }
    });
}

/// `y = cap · tanh(x / cap)`.
///
/// # Panics
/// If the two are not equally long.
pub fn soft_cap(pool: &mut Pool, cap: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output for each input");
    let floats = Floats::best();
    let y = SharedSlice::new(y);
    pool.run(x.len().div_ceil(PART), &|part| {
        let x = &x[part * PART..((part + 1) * PART).min(x.len())];
        // SAFETY: parts do not overlap.
        floats.soft_cap(cap, x, unsafe { y.part(part * PART, x.len()) });
    });
}

/// `x = e^((x - most) / scale)` in place, on the thread that calls; 0 below `e^-87`. NaN stays NaN.
pub fn exponentials(most: f32, scale: f32, x: &mut [f32]) {
    Floats::best().exponentials(most, scale, x);
}
