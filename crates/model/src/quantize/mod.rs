//! Symmetric quantization in blocks along a row, as ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized` read it.

pub mod distortion;
pub(crate) mod importance;
pub mod int4;
pub mod int8;
mod rounded;
pub(crate) mod stored;

pub use importance::Importance;
pub use rounded::Rounded;
pub use stored::Stored;

/// How the matrices of a bundle are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 32-bit floating point.
    F32,
    /// 8 bits a value and a scale a block.
    Int8,
    /// 4 bits a value and a scale a block.
    Int4,
}

impl WeightFormat {
    /// The word in options, bundles and reports.
    pub fn word(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::Int8 => "int8",
            WeightFormat::Int4 => "int4",
        }
    }
}

/// The block sizes that the kernels know, largest first.
pub const BLOCK_SIZES: [usize; 3] = [128, 64, 32];

/// A format with the block size that one matrix takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Bits of one value: 4 or 8.
    pub bits: Bits,
    /// Values that share a scale.
    pub size: usize,
}

/// Bits of one quantized value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Two values a byte, the even one in the low half; zero is 8.
    Four,
    /// One value a byte; zero is 128.
    Eight,
}

impl Bits {
    /// As the operators' attribute has it.
    pub fn count(self) -> usize {
        match self {
            Bits::Four => 4,
            Bits::Eight => 8,
        }
    }
}

impl Blocks {
    /// What a matrix with rows of `k` values takes: the largest block that is at most the requested one and divides `k`
    /// (with padding, the embedding's two operators would disagree). `None`: the matrix stays in f32.
    pub fn choose(format: WeightFormat, requested: usize, k: usize) -> Option<Blocks> {
        let bits = match format {
            WeightFormat::F32 => return None,
            WeightFormat::Int8 => Bits::Eight,
            WeightFormat::Int4 => Bits::Four,
        };
        BLOCK_SIZES
            .into_iter()
            .find(|&size| size <= requested && k.is_multiple_of(size))
            .map(|size| Blocks { bits, size })
    }

    /// Bytes of `values` quantized values, a multiple of the block size.
    pub fn bytes(self, values: usize) -> usize {
        values * self.bits.count() / 8
    }

    /// Quantizes whole blocks: `values.len()` is a multiple of the block size, `out` has [`Blocks::bytes`] of them, and
    /// `scales` one entry a block. `importance`, where there is one, has a weight for each value's squared error; 8 bits take
    /// no notice of it.
    pub fn quantize(self, values: &[f32], importance: Option<&[f32]>, out: &mut [u8], scales: &mut [f32]) {
        let blocks = values.chunks_exact(self.size).zip(out.chunks_exact_mut(self.bytes(self.size)));
        for (block, ((values, out), scale)) in blocks.zip(scales).enumerate() {
            let importance = importance.map(|all| &all[block * self.size..][..self.size]);
            *scale = match self.bits {
                Bits::Four => int4::quantize(values, importance, out),
                Bits::Eight => int8::quantize(values, out),
            };
        }
    }

    /// The values that the operators compute with.
    pub fn dequantize(self, bytes: &[u8], scales: &[f32], out: &mut [f32]) {
        let blocks = bytes.chunks_exact(self.bytes(self.size)).zip(out.chunks_exact_mut(self.size));
        for ((bytes, out), scale) in blocks.zip(scales) {
            match self.bits {
                Bits::Four => int4::dequantize(bytes, *scale, out),
                Bits::Eight => int8::dequantize(bytes, *scale, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_matrix_takes_the_largest_block_that_divides_its_rows() {
        let size = |requested, k| Blocks::choose(WeightFormat::Int4, requested, k).map(|blocks| blocks.size);
        assert_eq!(size(128, 2560), Some(128));
        assert_eq!(size(64, 2560), Some(64));
        assert_eq!(size(128, 192), Some(64));
        assert_eq!(size(128, 96), Some(32));
        assert_eq!(size(128, 48), None);
        assert_eq!(Blocks::choose(WeightFormat::F32, 32, 64), None);
    }

    fn block() -> impl Strategy<Value = Vec<f32>> {
        let magnitude = prop_oneof![Just(0.0f32), Just(1.0), Just(1e-30), Just(1e30), Just(f32::MIN_POSITIVE)];
        magnitude.prop_flat_map(|m| prop::collection::vec((-1.0f32..1.0).prop_map(move |v| v * m), 64))
    }

    /// What 64 values become in blocks of 32, and the scales.
    fn rounded(bits: Bits, values: &[f32], importance: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
        let blocks = Blocks { bits, size: 32 };
        let (mut bytes, mut scales, mut back) = (vec![0; blocks.bytes(64)], vec![0.0; 2], vec![0.0; 64]);
        blocks.quantize(values, importance, &mut bytes, &mut scales);
        blocks.dequantize(&bytes, &scales, &mut back);
        (back, scales)
    }

    /// The squared error of a block, each value weighed.
    fn error(values: &[f32], back: impl Fn(usize) -> f32, importance: &[f32]) -> f64 {
        let of = |i: usize| f64::from(importance[i]) * f64::from(values[i] - back(i)).powi(2);
        (0..values.len()).map(of).sum()
    }

    /// Rounding to the nearest of sixteen levels, with the extreme value at the end of the range.
    fn nearest(values: &[f32]) -> Vec<f32> {
        let extreme = values.iter().copied().fold(0.0f32, |max, v| if v.abs() > max.abs() { v } else { max });
        let scale = extreme / -8.0;
        let level = |v: f32| if scale == 0.0 { 0.0 } else { (v / scale).round_ties_even().clamp(-8.0, 7.0) };
        values.iter().map(|&v| level(v) * scale).collect()
    }

    proptest! {
        #[test]
        fn eight_bits_round_no_value_by_more_than_half_a_step(values in block()) {
            let (back, scales) = rounded(Bits::Eight, &values, None);
            for (i, (value, back)) in values.iter().zip(&back).enumerate() {
                // The smallest numbers have no half.
                let step = scales[i / 32].abs().max(f32::MIN_POSITIVE);
                prop_assert!((value - back).abs() <= step * 0.501, "{value} became {back} with a step of {step}");
            }
        }

        #[test]
        fn four_bits_err_no_more_than_rounding_to_the_nearest(
            values in block(),
            importance in prop::option::of(prop::collection::vec(0.0f32..10.0, 64)),
        ) {
            let (back, _) = rounded(Bits::Four, &values, importance.as_deref());
            prop_assert!(back.iter().all(|value| value.is_finite()));
            let all_the_same = vec![1.0; 64];
            let weights = importance.as_deref().unwrap_or(&all_the_same);
            for block in [0..32, 32..64] {
                let (values, back, weights) = (&values[block.clone()], &back[block.clone()], &weights[block]);
                let plain = nearest(values);
                let (ours, theirs) = (error(values, |i| back[i], weights), error(values, |i| plain[i], weights));
                prop_assert!(ours <= theirs * 1.001 + 1e-70, "{ours} is more than {theirs}");
            }
        }
    }

    #[test]
    fn what_matters_is_rounded_less() {
        // One value of a block of its own size, 31 of another: with equal weights it is cut off, with a large one it is kept.
        let mut values: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.5) / 64.0).collect();
        values[5] = 0.9;
        let mut importance = vec![1.0; 64];
        let away = |importance: &[f32]| (rounded(Bits::Four, &values, Some(importance)).0[5] - 0.9).abs();
        let before = away(&importance);
        importance[5] = 1e4;
        let after = away(&importance);
        assert!(after < before / 4.0, "{before} before, {after} after");
    }

    #[test]
    fn importance_without_a_number_counts_as_none() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        let plain = rounded(Bits::Four, &values, None);
        assert_eq!(rounded(Bits::Four, &values, Some(&[0.0; 64])), plain);
        assert_eq!(rounded(Bits::Four, &values, Some(&[f32::INFINITY; 64])), plain);
    }
}
