//! Loading a bundle's graph with the kernels that are configured, or those that are faster here.

use std::time::Instant;

use recurve_bundle::{Bundle, ModelInfo, StateKind};
use recurve_runtime::{
    Batch, KernelChoice, Library, LoadError, Model, ModelLayout, Options, Search, StateLayout, StepError, Trial,
};
use tracing::{debug, info, warn};

use super::EngineError;
use crate::config::{EngineSettings, KernelSetting, Provider};

/// A loaded graph, and the library that runs it.
#[derive(Debug)]
pub struct Graph {
    // Dropped in this order: session, environment.
    pub(super) model: Model,
    pub(super) library: Library,
}

impl Graph {
    /// Whose kernels compute: the instruction set of ours, or `onnxruntime`.
    pub fn kernels(&self) -> &'static str {
        self.model.kernels()
    }
}

/// What a graph is loaded with.
#[derive(Debug)]
pub struct Loader<'a> {
    library: Library,
    bundle: &'a Bundle,
    settings: &'a EngineSettings,
    layout: ModelLayout,
    kernels: KernelChoice,
}

impl<'a> Loader<'a> {
    /// Finds ONNX Runtime. A process has it once.
    ///
    /// # Errors
    /// It is missing, too old, or lacks the provider that is configured.
    pub fn library(settings: &EngineSettings) -> Result<Library, EngineError> {
        let search = Search {
            configured: settings.library.clone(),
            executable: std::env::current_exe().ok(),
            ..Search::default()
        };
        let library = Library::load(&search.find()?)?;
        if settings.provider == Provider::Cuda {
            library.expect_cuda()?;
        }
        Ok(library)
    }

    /// Finds out whose kernels are faster where that is configured: on a machine that does nothing else.
    pub fn new(library: Library, bundle: &'a Bundle, settings: &'a EngineSettings) -> Self {
        let layout = layout(bundle.info());
        let kernels = match settings.kernels {
            _ if settings.provider == Provider::Cuda => KernelChoice::Cuda,
            KernelSetting::Recurve => KernelChoice::Recurve,
            KernelSetting::OnnxRuntime => KernelChoice::OnnxRuntime,
            KernelSetting::Auto => faster(&library, bundle, &layout, &options(settings, KernelChoice::Recurve)),
        };
        Self { library, bundle, settings, layout, kernels }
    }

    /// Loads the graph, and has `first` compute with it: a graph that can be loaded may still fail then.
    ///
    /// # Errors
    /// ONNX Runtime refuses it or cannot compute it, it is not what the bundle says, or there is no memory for its state.
    pub fn load(self, first: impl FnMut(&mut Model) -> Result<(), StepError>) -> Result<Graph, EngineError> {
        let begun = Instant::now();
        let model = self.model(first)?;
        info!(
            library = %self.library.path().display(),
            kernels = model.kernels(),
            threads = recurve_runtime::threads(self.settings.threads),
            slots = self.settings.slots,
            ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "graph loaded"
        );
        Ok(Graph { model, library: self.library })
    }

    fn model(&self, mut first: impl FnMut(&mut Model) -> Result<(), StepError>) -> Result<Model, LoadError> {
        let graph = self.bundle.graph_path();
        let mut with = |kernels| {
            let mut model = Model::load(&self.library, &graph, self.layout.clone(), &options(self.settings, kernels))?;
            match first(&mut model) {
                Ok(()) => Ok(model),
                Err(error) => Err(LoadError::Refused { path: graph.clone(), reason: error.to_string() }),
            }
        };
        with(self.kernels).or_else(|error| match (&error, self.settings.kernels, self.kernels) {
            (LoadError::Refused { .. }, KernelSetting::Auto, KernelChoice::Recurve) => {
                let model = with(KernelChoice::OnnxRuntime)?;
                warn!(%error, "our kernels cannot compute the graph: ONNX Runtime's compute");
                Ok(model)
            }
            // What is missing then is missing for both, or there is no choice.
            _ => Err(error),
        })
    }
}

/// Computes a step and puts the row back.
///
/// # Errors
/// The step fails.
pub fn first_step(model: &mut Model) -> Result<(), StepError> {
    // Token 0 is in every vocabulary.
    let step = model.step(Batch { first: 0, starts: &[0], ids: &[0], logits: 1, tag: None })?;
    let finite = step.logits.iter().all(|logit| logit.is_finite());
    if finite {
        model.reset(0)
    } else {
        model.scrub(0)
    }
    Ok(())
}

fn options(settings: &EngineSettings, kernels: KernelChoice) -> Options {
    Options {
        threads: settings.threads,
        spinning: settings.spinning,
        rows: settings.slots,
        kernels,
        step_limit: Some(settings.step_limit),
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
        KernelChoice::Cuda => "cuda",
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
