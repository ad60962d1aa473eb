//! The weights that a quantized bundle holds, read back from the shards that were just written: what its golden test is made
//! of.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rayon::prelude::*;

use super::Blocks;
use crate::shard::Shard;
use crate::weights::{Weights, WeightsError};

/// Values that are read and made f32 at a time.
const PIECE: usize = 1 << 16;

/// The checkpoint's weights, with those that shards hold in few bits as they are there.
pub struct Stored<'a> {
    inner: &'a dyn Weights,
    files: Vec<(PathBuf, File)>,
    matrices: HashMap<String, Place>,
}

/// Where a matrix of the checkpoint lies in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) blocks: Blocks,
    /// Values in all.
    pub(crate) len: usize,
    /// Where its quantized values begin, in bytes.
    pub(crate) values: u64,
    /// Where its scales begin, in bytes.
    pub(crate) scales: u64,
    file: usize,
}

impl Place {
    /// A matrix in the shard that is added next.
    pub(crate) fn new(blocks: Blocks, len: usize, values: u64, scales: u64) -> Self {
        Self { blocks, len, values, scales, file: 0 }
    }
}

impl<'a> Stored<'a> {
    /// Reads what no shard holds in few bits from `inner`: gates, convolutions, norms and biases.
    pub fn new(inner: &'a dyn Weights) -> Self {
        Self { inner, files: Vec::new(), matrices: HashMap::new() }
    }

    /// Adds a shard that was written to this file.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn add(&mut self, shard: &Shard, path: PathBuf) -> std::io::Result<()> {
        let file = self.files.len();
        self.files.push((path.clone(), File::open(path)?));
        self.matrices.extend(shard.quantized().map(|(name, place)| (name, Place { file, ..place })));
        Ok(())
    }
}

impl Weights for Stored<'_> {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let Some(place) = self.matrices.get(name) else {
            return self.inner.read(name, first, out);
        };
        let want = first.saturating_add(out.len());
        if want > place.len {
            return Err(WeightsError::Short { name: name.to_owned(), have: place.len, want });
        }
        let size = place.blocks.size;
        if first.is_multiple_of(size) && out.len().is_multiple_of(size) {
            return out
                .par_chunks_mut(PIECE)
                .enumerate()
                .try_for_each(|(part, out)| self.blocks(name, place, first + part * PIECE, out));
        }
        // A part of a block: whole ones are read around it.
        let begin = first / size * size;
        let mut whole = vec![0.0; want.next_multiple_of(size) - begin];
        self.blocks(name, place, begin, &mut whole)?;
        out.copy_from_slice(&whole[first - begin..][..out.len()]);
        Ok(())
    }
}

impl Stored<'_> {
    /// Reads whole blocks.
    fn blocks(&self, name: &str, place: &Place, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let (path, file) = &self.files[place.file];
        let Place { blocks, .. } = *place;
        let mut bytes = vec![0; blocks.bytes(out.len())];
        let mut scales = vec![0; 4 * (out.len() / blocks.size)];
        let before = (first / blocks.size) as u64;
        file.read_exact_at(&mut bytes, place.values + blocks.bytes(first) as u64)
            .and_then(|()| file.read_exact_at(&mut scales, place.scales + 4 * before))
            .map_err(|source| WeightsError::Unreadable { path: path.clone(), name: name.to_owned(), source })?;
        let scales: Vec<f32> =
            scales.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        blocks.dequantize(&bytes, &scales, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ModelConfig;
    use crate::graph::{ExportOptions, GraphPlan};
    use crate::quantize::{Rounded, WeightFormat};
    use crate::random::RandomWeights;
    use crate::shapes;

    const CONFIG: &str = r#"{
        "model_type": "recurrent_gemma", "vocab_size": 300, "hidden_size": 96, "intermediate_size": 384,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "attention_window_size": 10
    }"#;

    #[test]
    fn what_was_written_is_what_rounding_makes() {
        let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
        let weights = RandomWeights::new(&config, 1);
        for format in [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4] {
            let dir = tempfile::tempdir().unwrap();
            let plan = GraphPlan::new(&config, &ExportOptions { weights: format, block_size: 64, max_chunk: 16 });
            let mut stored = Stored::new(&weights);
            for shard in plan.shards() {
                let path = dir.path().join(shard.name());
                shard.write(&weights, None, &mut File::create(&path).unwrap(), &mut |_| {}).unwrap();
                stored.add(shard, path).unwrap();
            }
            let rounded = Rounded::new(&weights, &config, format, 64, None);
            for tensor in shapes::tensors(&config) {
                for (first, count) in [(0, tensor.len()), (5, tensor.len() - 7), (tensor.len() / 2, 1)] {
                    let read = |weights: &dyn Weights| {
                        let mut values = vec![0.0; count];
                        weights.read(&tensor.name, first, &mut values).unwrap();
                        values
                    };
                    assert_eq!(read(&stored), read(&rounded), "{} from {first}", tensor.name);
                }
            }
            assert_eq!(stored.matrices.is_empty(), format == WeightFormat::F32);
        }
    }
}
