//! Writes a GGUF file with random weights: blocks of random bytes under fixed scales, so that the values have a mean near
//! zero and a standard deviation near 0.02, and nothing has to be quantized.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QStorage, QTensor, gguf_file};
use candle_core::{Device, Result};
use half::f16;

use crate::shape::{self, Kind};

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

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// Uniform in ±0.03: a standard deviation of 0.017.
    fn floats(&mut self, count: usize) -> Vec<u8> {
        let value = |bits: u64| ((bits >> 40) as f32 / (1u32 << 24) as f32 - 0.5) * 0.06;
        (0..count).flat_map(|_| value(self.next()).to_le_bytes()).collect()
    }
}

/// Random blocks of a format with the scales set: Q4_0 is (scale, 32 × 4 bits), Q4_K is (scale, scale of the minima,
/// 8 × 6 bits of scales and of minima, 256 × 4 bits).
fn blocks(random: &mut Random, dtype: GgmlDType, count: usize) -> Vec<u8> {
    let size = dtype.type_size();
    let mut bytes = random.bytes(count * size);
    let scale = f16::from_f32(if dtype == GgmlDType::Q4K { 1e-4 } else { 5e-3 }).to_le_bytes();
    let minimum = f16::from_f32(7.5e-4).to_le_bytes();
    for block in bytes.chunks_exact_mut(size) {
        block[..2].copy_from_slice(&scale);
        if dtype == GgmlDType::Q4K {
            block[2..4].copy_from_slice(&minimum);
        }
    }
    bytes
}

/// Writes a model of the shape with its matrices in `dtype`, which is Q4_0 or Q4_K, beside the path first.
///
/// # Errors
/// When the file cannot be written.
pub fn random_file(path: &Path, dtype: GgmlDType) -> Result<()> {
    let mut random = Random(2);
    let mut tensors = Vec::new();
    for entry in shape::tensors(&shape::config()) {
        let values: usize = entry.shape.iter().product();
        let (dtype, bytes) = match entry.kind {
            Kind::Matrix => (dtype, blocks(&mut random, dtype, values / dtype.block_size())),
            Kind::Plain => (GgmlDType::F32, random.floats(values)),
        };
        let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)?;
        tensors.push((entry.name, QTensor::new(storage, entry.shape)?));
    }
    let list: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let partial = path.with_extension("partial");
    gguf_file::write(&mut BufWriter::new(File::create(&partial)?), &[], &list)?;
    Ok(std::fs::rename(partial, path)?)
}
