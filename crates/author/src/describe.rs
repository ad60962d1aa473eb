//! The description of an exported model for the daemon: `recurve.json`.

use recurve_bundle::{ARCHITECTURE, INFO_FORMAT, ModelInfo, StateInfo, StateKind};
use recurve_model::{ExportOptions, ModelConfig, StateSpec, WeightFormat};

use crate::error::ExportError;
use crate::generation::Generation;

/// Fills `recurve.json`.
///
/// # Errors
/// A size does not fit 32 bits.
pub(crate) fn info(
    name: String,
    config: &ModelConfig,
    options: &ExportOptions,
    generation: &Generation,
    states: &[StateSpec],
) -> Result<ModelInfo, ExportError> {
    let state = |state: &StateSpec| {
        Ok(StateInfo {
            name: state.name.clone(),
            kind: match state.kind {
                recurve_model::StateKind::Conv => StateKind::Conv,
                recurve_model::StateKind::Lru => StateKind::Lru,
                recurve_model::StateKind::Keys => StateKind::K,
                recurve_model::StateKind::Values => StateKind::V,
            },
            layer: narrow(state.layer)?,
            shape: state.shape.iter().map(|&size| narrow(size)).collect::<Result<_, _>>()?,
        })
    };
    let block_size = match options.weights {
        WeightFormat::F32 => None,
        WeightFormat::Int8 | WeightFormat::Int4 => Some(narrow(options.block_size)?),
    };
    Ok(ModelInfo {
        format: INFO_FORMAT,
        name,
        architecture: ARCHITECTURE.to_owned(),
        parameters: config.parameters(),
        hidden_size: narrow(config.hidden_size)?,
        layers: narrow(config.layers())?,
        vocab_size: narrow(config.vocab_size)?,
        window: narrow(config.window)?,
        max_chunk: narrow(options.max_chunk)?,
        weights: options.weights.word().to_owned(),
        block_size,
        states: states.iter().map(state).collect::<Result<_, ExportError>>()?,
        bos_token: generation.bos_token,
        end_tokens: generation.end_tokens.clone(),
    })
}

/// Sizes of a checked configuration fit 32 bits, except a ring at the very end of what is allowed.
fn narrow(size: usize) -> Result<u32, ExportError> {
    u32::try_from(size).map_err(|_| ExportError::Option {
        option: "config.json:",
        value: size.to_string(),
        problem: "a size that does not fit 32 bits cannot be exported".to_owned(),
    })
}
