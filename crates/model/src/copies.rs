//! Tensors of a checkpoint that are not the model's own, since they follow from others: some tools save them, and one that does
//! not follow belongs to another model.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::ModelConfig;
use crate::shapes::EMBEDDING;
use crate::weights::Weights as _;

/// Values that are compared at a time.
const PIECE: usize = 4 << 20;
/// What a saved frequency may be away from the one that follows: bf16 has 8 bits.
const ROUNDED: f32 = 0.01;

const HEAD: &str = "lm_head.weight";
const FREQUENCIES: &str = "rotary_emb.inv_freq";

/// The copies among these names, each with the shape that it must have.
pub(crate) fn shapes<'a>(names: impl Iterator<Item = &'a String>, config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    names
        .filter_map(|name| match name.as_str() {
            HEAD => Some((name.clone(), vec![config.vocab_size, config.hidden_size])),
            other if other.ends_with(FREQUENCIES) => Some((name.clone(), vec![config.rotary_dim / 2])),
            _ => None,
        })
        .collect()
}

/// Compares a copy with what it follows from.
pub(crate) fn check(checkpoint: &Checkpoint, name: &str, config: &ModelConfig) -> Result<(), CheckpointError> {
    if name == HEAD { same_as_embedding(checkpoint) } else { same_frequencies(checkpoint, name, config) }
}

fn same_as_embedding(checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let len = checkpoint.len_of(EMBEDDING);
    let (mut head, mut embedding) = (Vec::new(), Vec::new());
    for first in (0..len).step_by(PIECE) {
        let count = PIECE.min(len - first);
        head.resize(count, 0.0);
        embedding.resize(count, 0.0);
        checkpoint.read(HEAD, first, &mut head)?;
        checkpoint.read(EMBEDDING, first, &mut embedding)?;
        if let Some(at) = (0..count).find(|&at| head[at] != embedding[at]) {
            return Err(CheckpointError::Contradicts {
                path: checkpoint.path_of(HEAD),
                name: HEAD.to_owned(),
                index: first + at,
                have: head[at],
                of: EMBEDDING,
                want: embedding[at],
                advice: "RecurrentGemma's head is its embedding, and a model with a head of its own cannot be exported: \
                         tie the two, or remove the head if it is left over",
            });
        }
    }
    Ok(())
}

fn same_frequencies(checkpoint: &Checkpoint, name: &str, config: &ModelConfig) -> Result<(), CheckpointError> {
    let wanted = config.rotary_frequencies();
    let saved = checkpoint.all(name, wanted.len())?;
    match (0..wanted.len()).find(|&at| (saved[at] - wanted[at]).abs() > ROUNDED * wanted[at]) {
        None => Ok(()),
        Some(at) => Err(CheckpointError::Contradicts {
            path: checkpoint.path_of(name),
            name: name.to_owned(),
            index: at,
            have: saved[at],
            of: "rope_theta of config.json",
            want: wanted[at],
            advice: "correct rope_theta and partial_rotary_factor, or remove the tensor if it is left over",
        }),
    }
}
