//! One register of AVX-512, or two of AVX2.

use std::arch::x86_64::*;

use super::Lanes;
use crate::float::math::Vector;

/// AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

impl Lanes for Avx512 {
    const TILE: usize = 4;

    #[inline(always)]
    fn all(value: f32) -> Self {
        // SAFETY: here and below, the CPU has the instructions where this type is used; memory is as long as its type.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(values: &Vector) -> Self {
        // SAFETY: as above.
        unsafe { Self(_mm512_loadu_ps(values.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, values: &mut Vector) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self(_mm512_fmadd_ps(self.0, by.0, to.0)) }
    }

    #[inline(always)]
    fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe {
            // Halves of two registers, then quarters of all four: a register then has a quarter for each of the four sums.
            let ab = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a.0, b.0), _mm512_shuffle_f32x4::<0xee>(a.0, b.0));
            let cd = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c.0, d.0), _mm512_shuffle_f32x4::<0xee>(c.0, d.0));
            let four = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            let four = _mm512_add_ps(four, _mm512_permute_ps::<0x4e>(four));
            let four = _mm512_add_ps(four, _mm512_permute_ps::<0xb1>(four));
            let firsts =
                _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), four);
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps128(firsts));
            sums
        }
    }
}

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2]);

impl Lanes for Avx2 {
    const TILE: usize = 1;

    #[inline(always)]
    fn all(value: f32) -> Self {
        // SAFETY: here and below, the CPU has the instructions where this type is used; memory is as long as its type.
        unsafe { Self([_mm256_set1_ps(value); 2]) }
    }

    #[inline(always)]
    fn load(values: &Vector) -> Self {
        // SAFETY: as above.
        unsafe { Self([_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))]) }
    }

    #[inline(always)]
    fn store(self, values: &mut Vector) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self([_mm256_fmadd_ps(self.0[0], by.0[0], to.0[0]), _mm256_fmadd_ps(self.0[1], by.0[1], to.0[1])]) }
    }

    #[inline(always)]
    fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        for (sums, [a, b]) in sums.as_chunks_mut().0.iter_mut().zip([[a, b], [c, d]]) {
            *sums = Self::two_sums(a, b);
        }
        sums
    }
}

impl Avx2 {
    #[inline(always)]
    fn two_sums(Self([a, b]): Self, Self([c, d]): Self) -> [f32; 2] {
        // SAFETY: as above.
        unsafe {
            let (ab, cd) = (_mm256_add_ps(a, b), _mm256_add_ps(c, d));
            // A register then has a quarter for each of the two sums.
            let two = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(ab, cd), _mm256_permute2f128_ps::<0x31>(ab, cd));
            let two = _mm256_add_ps(two, _mm256_permute_ps::<0x4e>(two));
            let two = _mm256_add_ps(two, _mm256_permute_ps::<0xb1>(two));
            [_mm256_cvtss_f32(two), _mm_cvtss_f32(_mm256_extractf128_ps::<1>(two))]
        }
    }
}
