//! Sixteen values side by side, in the registers of an instruction set: for the loops that hold many sums at once, which
//! the compiler does not keep in registers by itself. All give the same bits.

#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

use super::math::{Vector, WIDTH, sum};

/// Sixteen values. Functions that use a type of this kind are compiled with its instructions, and called only where the CPU
/// has them. A closure would be compiled without them: loops are written out.
pub(crate) trait Lanes: Copy {
    /// Queries whose sums fit into the registers together.
    const TILE: usize;
    /// The same value in all.
    fn all(value: f32) -> Self;
    /// From memory.
    fn load(values: &Vector) -> Self;
    /// To memory.
    fn store(self, values: &mut Vector);
    /// `self · by + to`, rounded once.
    fn mul_add(self, by: Self, to: Self) -> Self;
    /// The sums of four, each in the order of [`sum`].
    fn sums(four: [Self; 4]) -> [f32; 4];
}

/// The definition of all others.
// Every arm64 has NEON: there, only tests compute with it.
#[cfg_attr(all(target_arch = "aarch64", not(test)), allow(dead_code))]
#[derive(Clone, Copy)]
pub(crate) struct Plain(Vector);

impl Lanes for Plain {
    const TILE: usize = 1;

    #[inline(always)]
    fn all(value: f32) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    fn load(values: &Vector) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut Vector) {
        *values = self.0;
    }

    #[inline(always)]
    fn mul_add(self, by: Self, to: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(by.0[i], to.0[i])))
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        four.map(|lanes| sum(&lanes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equals_plain<L: Lanes>() {
        let number = |i: usize, j: usize| ((i * 31 + j * 17) as f32).sin() * 10f32.powi((i + j) as i32 % 7 - 3);
        let v: [Vector; 6] = std::array::from_fn(|i| std::array::from_fn(|j| number(i, j)));
        let stored = |lanes: L| {
            let mut values = [0.0; WIDTH];
            lanes.store(&mut values);
            values
        };
        assert_eq!(stored(L::all(2.5)), [2.5; WIDTH]);
        assert_eq!(stored(L::load(&v[0]).mul_add(L::load(&v[1]), L::load(&v[2]))), {
            let mut values = [0.0; WIDTH];
            Plain(v[0]).mul_add(Plain(v[1]), Plain(v[2])).store(&mut values);
            values
        });
        let four = |first: usize| -> [Vector; 4] { std::array::from_fn(|i| v[first + i]) };
        for first in 0..3 {
            let sums = L::sums(four(first).map(|v| L::load(&v)));
            assert_eq!(sums.map(f32::to_bits), Plain::sums(four(first).map(Plain)).map(f32::to_bits));
        }
    }

    #[test]
    fn registers_equal_the_definition() {
        equals_plain::<Plain>();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                equals_plain::<Avx512>();
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                equals_plain::<Avx2>();
            }
        }
        #[cfg(target_arch = "aarch64")]
        equals_plain::<Neon>();
    }
}
