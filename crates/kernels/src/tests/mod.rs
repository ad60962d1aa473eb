//! What holds for all kernels: they are equal to the definition to the last bit, whatever they are given.

mod company;
mod equal;
mod floats;
mod layout;
mod pool;
mod rounding;

use std::time::Duration;

use proptest::prelude::*;

use crate::{Bits, Kernels, Matrix, Pool, Scratch, Shape, product};

/// A block product of random operands. Everything follows from the fields that a property chooses.
#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    m: usize,
    values: Vec<u8>,
    scales: Vec<f32>,
    x: Vec<f32>,
    bias: Option<Vec<f32>>,
}

/// How wild the numbers are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Numbers {
    /// Magnitudes around 1.
    Plain,
    /// Every finite magnitude, zeros and subnormal ones among them.
    Finite,
    /// Any bits.
    Any,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From -1 to 1.
    fn plain(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// What numbers of one unit or block are multiplied with.
    fn magnitude(&mut self, numbers: Numbers) -> f32 {
        const FINITE: [f32; 11] =
            [1.0, -1.0, 0.0, -0.0, 1e-45, 1e-38, 0.9e-30, 1.1e-30, 1e30, f32::MAX, f32::MIN_POSITIVE];
        const BROKEN: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xffff_ffff)];
        match numbers {
            Numbers::Plain => 1.0,
            Numbers::Any if self.below(40) == 0 => BROKEN[self.below(BROKEN.len())],
            _ if self.below(2) == 0 => 1.0,
            _ => FINITE[self.below(FINITE.len())],
        }
    }

    fn scale(&mut self, numbers: Numbers) -> f32 {
        let plain = self.plain();
        match self.magnitude(numbers) {
            1.0 => plain,
            extreme => extreme,
        }
    }
}

impl Case {
    fn new(shape: Shape, m: usize, numbers: Numbers, seed: u64) -> Self {
        let mut random = Random(seed);
        let row = |random: &mut Random| {
            // Bytes at the ends of their range in whole rows now and then: sums are largest there.
            let kind = random.below(6);
            (0..shape.row_bytes())
                .map(|_| match kind {
                    0 => 0,
                    1 => 0xff,
                    _ => random.next() as u8,
                })
                .collect::<Vec<_>>()
        };
        let values = (0..shape.rows()).flat_map(|_| row(&mut random)).collect();
        let scales = (0..shape.rows() * shape.row_scales()).map(|_| random.scale(numbers)).collect();
        let mut x = Vec::new();
        for _ in 0..m * shape.columns() / 32 {
            let magnitude = random.magnitude(numbers);
            // All at the largest magnitude, now and then: sums are largest there.
            let extreme = random.below(4) == 0;
            x.extend((0..32).map(|_| match random.plain() {
                plain if extreme => plain.signum() * magnitude,
                plain => plain * magnitude,
            }));
        }
        let bias = (random.below(2) == 0).then(|| (0..shape.rows()).map(|_| random.plain()).collect());
        Self { shape, m, values, scales, x, bias }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.shape, &self.values, &self.scales).unwrap()
    }

    fn product(&self, kernels: &Kernels) -> Vec<f32> {
        self.product_of(kernels, &mut pool(1), &self.x)
    }

    fn product_of(&self, kernels: &Kernels, pool: &mut Pool, x: &[f32]) -> Vec<f32> {
        let mut y = vec![f32::MAX; x.len() / self.shape.columns() * self.shape.rows()];
        product(kernels, pool, &mut Scratch::default(), self.matrix(), x, self.bias.as_deref(), &mut y);
        y
    }

    /// One row of the result `y`.
    fn row<'a>(&self, y: &'a [f32], m: usize) -> &'a [f32] {
        &y[m * self.shape.rows()..][..self.shape.rows()]
    }
}

fn pool(threads: usize) -> Pool {
    Pool::new(threads, Duration::from_micros(20)).unwrap()
}

fn scalar() -> Kernels {
    *Kernels::available().last().unwrap()
}

/// Any shape with up to 40 rows of up to 2,048 values.
fn shapes() -> impl Strategy<Value = Shape> {
    (1..=40usize, prop_oneof![Just(Bits::Four), Just(Bits::Eight)], prop_oneof![Just(32), Just(64), Just(128)])
        .prop_flat_map(|(rows, bits, block)| {
            (1..=2048 / block).prop_map(move |blocks| Shape::new(rows, blocks * block, bits, block).unwrap())
        })
}

/// Rows of activations: a few, for which kernels keep their sums in registers, as often as many.
fn counts() -> impl Strategy<Value = usize> {
    prop_oneof![1..=9usize, 10..=40usize]
}

fn cases(numbers: Numbers) -> impl Strategy<Value = Case> {
    (shapes(), counts(), any::<u64>()).prop_map(move |(shape, m, seed)| Case::new(shape, m, numbers, seed))
}

/// The same bits, or both NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Where two results differ first, in words.
fn difference(found: &[f32], needed: &[f32]) -> Option<String> {
    assert_eq!(found.len(), needed.len());
    let at = found.iter().zip(needed).position(|(a, b)| !same(*a, *b))?;
    Some(format!("element {at} is {:e} and should be {:e}", found[at], needed[at]))
}

/// Prints what the other tests compare: read by `tests/run.sh`.
#[test]
fn kernels_of_this_machine() {
    let names: Vec<_> = Kernels::tested().iter().map(Kernels::name).collect();
    println!("kernels: {}", names.join(", "));
    assert_eq!(Kernels::best().name(), names[0]);
    assert_eq!(Kernels::available().last().unwrap().name(), "scalar");
}
