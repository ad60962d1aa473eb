//! Seeded random weights of any shape: they run as fast as real ones, so a device can be sized before a download.

use std::collections::HashMap;

use crate::config::ModelConfig;
use crate::shapes;
use crate::weights::{Weights, WeightsError};

/// Weights drawn from a seed. A value depends on the seed, its tensor's name and its index alone, so any part can be
/// read in any order, and the same seed gives the same bytes on every machine.
#[derive(Debug)]
pub struct RandomWeights {
    seed: u64,
    tensors: HashMap<String, Tensor>,
}

#[derive(Debug)]
struct Tensor {
    len: usize,
    /// Half the width of the uniform distribution.
    reach: f32,
    /// Its centre.
    centre: f32,
}

impl RandomWeights {
    /// Weights for every tensor of this configuration. Matrices are scaled by the square root of their fan-in, and the
    /// recurrence forgets slowly, so that activations stay in the range of a trained model's.
    pub fn new(config: &ModelConfig, seed: u64) -> Self {
        let tensors = shapes::tensors(config)
            .into_iter()
            .map(|tensor| {
                let fan_in = match tensor.shape.as_slice() {
                    [_heads, _rows, columns] if tensor.name.ends_with("gate_weight") => *columns,
                    [_channels, _one, taps] => *taps,
                    [_rows, columns] if tensor.name.ends_with("weight") => *columns,
                    _ => 0,
                };
                let (reach, centre) = match fan_in {
                    // softplus(-4.5) * 8 = 0.09: a decay of 0.91 to 1 at every step.
                    0 if tensor.name.ends_with("recurrent_param") => (0.5, -4.5),
                    0 => (0.1, 0.0),
                    n => ((3.0 / n as f32).sqrt(), 0.0),
                };
                let len = tensor.len();
                (tensor.name, Tensor { len, reach, centre })
            })
            .collect();
        Self { seed, tensors }
    }
}

impl Weights for RandomWeights {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        use rayon::prelude::*;
        let tensor = self.tensors.get(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        let want = first.saturating_add(out.len());
        if want > tensor.len {
            return Err(WeightsError::Short { name: name.to_owned(), have: tensor.len, want });
        }
        let key = name.bytes().fold(self.seed, |key, byte| mix(key ^ u64::from(byte)));
        let piece = 1 << 14;
        out.par_chunks_mut(piece).enumerate().for_each(|(part, out)| {
            for (i, value) in out.iter_mut().enumerate() {
                let bits = mix(key ^ (first + part * piece + i) as u64) >> 40;
                // 24 bits to [-1, 1): exact in f32.
                let unit = bits as f32 / (1 << 23) as f32 - 1.0;
                *value = tensor.centre + tensor.reach * unit;
            }
        });
        Ok(())
    }
}

/// The SplitMix64 step and finalizer (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
