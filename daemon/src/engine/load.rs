//! Loading a bundle's graph with the kernels that are configured, or those that are faster here.

use recurve_bundle::{Bundle, ModelInfo, StateKind};
use recurve_runtime::{KernelChoice, Library, LoadError, Model, ModelLayout, Options, StateLayout, Trial};
use tracing::{debug, info, warn};

use crate::config::{EngineSettings, KernelSetting};

/// Loads the graph.
///
/// # Errors
/// ONNX Runtime refuses it, it is not what the bundle says, or there is no memory for its state.
pub(super) fn model(library: &Library, bundle: &Bundle, settings: &EngineSettings) -> Result<Model, LoadError> {
    let options =
        |kernels| Options { threads: settings.threads, spinning: settings.spinning, rows: settings.slots, kernels };
    let layout = layout(bundle.info());
    let with = |kernels| Model::load(library, &bundle.graph_path(), layout.clone(), &options(kernels));
    match settings.kernels {
        KernelSetting::Recurve => with(KernelChoice::Recurve),
        KernelSetting::OnnxRuntime => with(KernelChoice::OnnxRuntime),
        KernelSetting::Auto => match faster(library, bundle, &layout, &options(KernelChoice::Recurve)) {
            KernelChoice::OnnxRuntime => with(KernelChoice::OnnxRuntime),
            KernelChoice::Recurve => with(KernelChoice::Recurve).or_else(|error| match error {
                // What is missing then is missing for both.
                LoadError::Memory { .. } | LoadError::Mismatch { .. } => Err(error),
                LoadError::Refused { .. } => {
                    let model = with(KernelChoice::OnnxRuntime)?;
                    warn!(%error, "our kernels cannot load the graph: ONNX Runtime's compute");
                    Ok(model)
                }
            }),
        },
    }
}

/// Tries both kinds of kernels for a moment, and says what came out.
fn faster(library: &Library, bundle: &Bundle, layout: &ModelLayout, options: &Options) -> KernelChoice {
    let weights = bundle.shards().map(|(_, bytes)| bytes).sum();
    match Trial::of(library, &bundle.graph_path(), layout, weights, options) {
        Ok(Some(trial)) => {
            let choice = trial.choice();
            info!(
                kernels = name(choice),
                by = %trial.tried,
                recurve_us = micros(trial.recurve),
                onnxruntime_us = micros(trial.onnxruntime),
                ms = u64::try_from(trial.took.as_millis()).unwrap_or(u64::MAX),
                "kernels compared"
            );
            choice
        }
        Ok(None) => {
            debug!("the graph has no products of quantized weights: there are no kernels to compare");
            KernelChoice::Recurve
        }
        Err(error) => {
            let choice = error.leaves();
            warn!(%error, kernels = name(choice), "the kernels cannot be compared");
            choice
        }
    }
}

/// As `engine.kernels` names it.
fn name(choice: KernelChoice) -> &'static str {
    match choice {
        KernelChoice::Recurve => "recurve",
        KernelChoice::OnnxRuntime => "onnxruntime",
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the bundle says of its graph, in the runtime's words.
fn layout(info: &ModelInfo) -> ModelLayout {
    ModelLayout {
        vocab: info.vocab_size as usize,
        max_chunk: info.max_chunk as usize,
        states: info
            .states
            .iter()
            .map(|state| StateLayout {
                name: state.name.clone(),
                shape: state.shape.iter().map(|&dim| dim as usize).collect(),
                ring: matches!(state.kind, StateKind::K | StateKind::V),
            })
            .collect(),
    }
}
