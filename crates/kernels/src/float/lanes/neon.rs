//! Four registers of 64-bit Arm.

use std::arch::aarch64::*;

use super::Lanes;
use crate::float::math::Vector;

/// Every 64-bit Arm CPU has it.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

impl Lanes for Neon {
    const TILE: usize = 1;

    #[inline(always)]
    fn all(value: f32) -> Self {
        // SAFETY: here and below, every CPU of this kind has the instructions; memory is as long as its type.
        unsafe { Self([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    fn load(values: &Vector) -> Self {
        let at = values.as_ptr();
        // SAFETY: as above.
        unsafe { Self([vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))]) }
    }

    #[inline(always)]
    fn store(self, values: &mut Vector) {
        for (values, lanes) in values.chunks_exact_mut(4).zip(self.0) {
            // SAFETY: as above.
            unsafe { vst1q_f32(values.as_mut_ptr(), lanes) }
        }
    }

    #[inline(always)]
    fn mul_add(self, by: Self, to: Self) -> Self {
        let mut all = to.0;
        for (to, (this, by)) in all.iter_mut().zip(self.0.into_iter().zip(by.0)) {
            // SAFETY: as above.
            unsafe { *to = vfmaq_f32(*to, this, by) }
        }
        Self(all)
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        for (sum, Self([a, b, c, d])) in sums.iter_mut().zip(four) {
            // SAFETY: as above.
            unsafe {
                let quarter = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
                let pair = vadd_f32(vget_low_f32(quarter), vget_high_f32(quarter));
                *sum = vget_lane_f32::<0>(vpadd_f32(pair, pair));
            }
        }
        sums
    }
}
