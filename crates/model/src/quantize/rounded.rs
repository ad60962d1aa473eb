//! The weights that a quantized bundle really holds, under their Hugging Face names: what its oracle computes with.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Blocks, Importance, WeightFormat};
use crate::config::ModelConfig;
use crate::shapes;
use crate::weights::{Weights, WeightsError};

/// Other weights, rounded as a bundle of this format rounds them.
pub struct Rounded<'a> {
    inner: &'a dyn Weights,
    /// Row width and blocks of each tensor that is quantized.
    tensors: HashMap<String, (usize, Blocks)>,
    importance: Option<&'a Importance>,
}

impl<'a> Rounded<'a> {
    /// The products' matrices and the embedding are rounded, by the same importance as in the bundle; gates, convolution,
    /// norms and biases are kept in f32.
    pub fn new(
        inner: &'a dyn Weights,
        config: &ModelConfig,
        format: WeightFormat,
        block_size: usize,
        importance: Option<&'a Importance>,
    ) -> Self {
        let tensors = shapes::tensors(config)
            .into_iter()
            .filter_map(|tensor| match tensor.shape.as_slice() {
                [_, columns] if tensor.name.ends_with(".weight") => {
                    Blocks::choose(format, block_size, *columns).map(|blocks| (tensor.name, (*columns, blocks)))
                }
                _ => None,
            })
            .collect();
        Self { inner, tensors, importance }
    }
}

impl Weights for Rounded<'_> {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let Some(&(columns, blocks)) = self.tensors.get(name) else {
            return self.inner.read(name, first, out);
        };
        if first.is_multiple_of(columns) && out.len().is_multiple_of(columns) {
            self.inner.read(name, first, out)?;
            let importance = self.importance.and_then(|importance| importance.of(name));
            out.par_chunks_mut(columns).for_each(|row| round(blocks, importance, row));
            return Ok(());
        }
        // A part of a row: its block's other values decide the scale, so whole rows are read around it.
        let begin = first / columns * columns;
        let end = (first + out.len()).div_ceil(columns) * columns;
        let mut rows = vec![0.0; end - begin];
        self.read(name, begin, &mut rows)?;
        out.copy_from_slice(&rows[first - begin..][..out.len()]);
        Ok(())
    }
}

/// Rounds a row in place.
fn round(blocks: Blocks, importance: Option<&[f32]>, values: &mut [f32]) {
    let mut bytes = vec![0; blocks.bytes(values.len())];
    let mut scales = vec![0.0; values.len() / blocks.size];
    blocks.quantize(values, importance, &mut bytes, &mut scales);
    blocks.dequantize(&bytes, &scales, values);
}
