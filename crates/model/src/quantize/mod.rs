//! Symmetric quantization in blocks along a row, as ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized` read it.

pub mod distortion;
pub mod int4;
pub mod int8;
mod rounded;

pub use rounded::Rounded;

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
    /// `scales` one entry a block.
    pub fn quantize(self, values: &[f32], out: &mut [u8], scales: &mut [f32]) {
        let blocks = values.chunks_exact(self.size).zip(out.chunks_exact_mut(self.bytes(self.size)));
        for ((values, out), scale) in blocks.zip(scales) {
            *scale = match self.bits {
                Bits::Four => int4::quantize(values, out),
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

    proptest! {
        #[test]
        fn no_value_is_rounded_by_more_than_a_step(values in block(), bits in prop_oneof![Just(Bits::Four), Just(Bits::Eight)]) {
            let blocks = Blocks { bits, size: 32 };
            let (mut bytes, mut scales) = (vec![0; blocks.bytes(64)], vec![0.0; 2]);
            blocks.quantize(&values, &mut bytes, &mut scales);
            let mut back = vec![0.0; 64];
            blocks.dequantize(&bytes, &scales, &mut back);
            for (i, (value, back)) in values.iter().zip(&back).enumerate() {
                // Half a step in general; a whole one at the end of the 4-bit range that has one level less.
                let step = scales[i / 32].abs().max(f32::MIN_POSITIVE);
                prop_assert!((value - back).abs() <= step * 1.001, "{value} became {back} with a step of {step}");
            }
        }

        #[test]
        fn what_was_rounded_once_stays(values in block()) {
            let blocks = Blocks { bits: Bits::Four, size: 32 };
            let mut once = values.clone();
            rounded::round(blocks, &mut once);
            prop_assert!(once.iter().all(|value| value.is_finite()));
        }
    }
}
