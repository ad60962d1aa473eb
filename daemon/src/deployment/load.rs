//! A model from the disk into memory, examined on the way.

use std::sync::Arc;

use recurve_bundle::Bundle;
use recurve_runtime::{Library, StepError, Weights};
use tracing::warn;

use super::memory;
use super::order::DeployError;
use crate::Error;
use crate::admission::Admission;
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::golden::examine_briefly;
use crate::engine::load::{Graph, Loader, first_step};
use crate::engine::meter::Meter;
use crate::model::Model;
use crate::node::{Counts, Serving};
use crate::progress::{Progress, Underway};
use crate::store::Prepared;
use crate::system::memory::available;
use crate::weights::Warming;

/// A model that was loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) serving: Serving,
    pub(super) bundle: Bundle,
    /// Bytes of memory that it takes, as far as that can be told beforehand.
    pub(super) memory: u64,
    /// Keeps the weights locked, where they are.
    _locked: Option<Weights>,
}

/// What every loading takes.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) library: Library,
    pub(super) settings: Arc<Settings>,
    pub(super) progress: Arc<Progress>,
}

/// A bundle's parts in memory, before the engine has them.
struct Parts {
    model: Arc<Model>,
    graph: Graph,
    locked: Option<Weights>,
    _underway: Underway,
}

/// Loads a bundle that served before, and has it pass the short form of its golden test.
pub(super) fn load(means: &Means, bundle: &Bundle) -> Result<Loaded, Error> {
    let golden = bundle.golden()?;
    let mut judged = Ok(());
    // Nothing is timed, so that it takes no longer for the tokenizer that is read beside it.
    let parts = read(means, bundle, |model| {
        judged = examine_briefly(model, &golden)?;
        Ok(())
    })?;
    judged.map_err(|source| Error::Golden { bundle: bundle.digest().to_string(), source })?;
    start(means, bundle, parts)
}

/// Loads a bundle and has it pass its golden test.
pub(super) fn examined(means: &Means, bundle: &Bundle) -> Result<(Loaded, Prepared), DeployError> {
    let unusable = |error: Error| DeployError::Unusable(error.to_string());
    let golden = bundle.golden().map_err(|error| unusable(error.into()))?;
    let mut parts = read(means, bundle, first_step).map_err(unusable)?;
    // Alone, because it measures the speed.
    let examined = parts.graph.examine(&golden)?;
    let prepared = Prepared {
        apart: examined.apart,
        allowed: examined.allowed,
        tokens_per_second: examined.tokens_per_second,
        kernels: parts.graph.kernels().to_owned(),
    };
    Ok((start(means, bundle, parts).map_err(unusable)?, prepared))
}

/// Reads a bundle: tokenizer and template beside the graph, the weights, and the `first` steps with them.
fn read(
    means: &Means,
    bundle: &Bundle,
    mut first: impl FnMut(&mut recurve_runtime::Model) -> Result<(), StepError> + Send,
) -> Result<Parts, Error> {
    let Means { library, settings, progress } = means;
    let weights = bundle.shards().map(|(_, bytes)| bytes).sum();
    if let Some(shortage) = memory::shortage(bundle, &settings.engine, available()) {
        // Before the kernel says it.
        warn!(
            model = bundle.info().name,
            needed = shortage.needed,
            available = shortage.can_be_had,
            advice = memory::ADVICE,
            "this machine may have too little memory for the model"
        );
    }
    let underway = progress.begin(&bundle.info().name, weights);
    let loader = Loader::new(library.clone(), bundle, &settings.engine);
    let warming = Warming::start(bundle, settings.engine.lock_weights, progress)
        .map_err(|error| Error::Internal(format!("the thread that reads weights cannot be started: {error}")))?;
    let graph = || {
        let (mut warming, mut locked) = (Some(warming), Ok(None));
        let graph = loader.load(|model| {
            if let Some(warming) = warming.take() {
                locked = warming.finished();
            }
            // Not without the weights: a step that reads them from a disk that fails ends the process.
            if locked.is_ok() { first(model) } else { Ok(()) }
        })?;
        Ok::<_, Error>((graph, locked?))
    };
    // A large tokenizer takes longer than the graph.
    let (model, graph) = rayon::join(|| Model::from_bundle(bundle, settings.limits.clone()), graph);
    let (model, (graph, locked)) = (Arc::new(model?), graph?);
    Ok(Parts { model, graph, locked, _underway: underway })
}

/// Starts the engine on a bundle's parts.
fn start(means: &Means, bundle: &Bundle, parts: Parts) -> Result<Loaded, Error> {
    let settings = &means.settings;
    let Parts { model, graph, locked, _underway } = parts;
    let admission = Admission::new(settings.engine.queue, settings.engine.slots);
    let meter = Arc::new(Meter::default());
    let kernels = graph.kernels();
    let engine =
        Engine::start(graph, model.tokenizer.clone(), &settings.engine, Arc::clone(&admission), Arc::clone(&meter))?;
    // Comparing kernels and reading a tokenizer take tens of megabytes for a moment.
    recurve_runtime::release_free_memory();
    let serving = Serving {
        model,
        admission,
        counts: Arc::new(Counts::default()),
        meter,
        terminator: engine.terminator(),
        kernels,
        rows: settings.engine.slots,
    };
    let memory = memory::needed(bundle.info(), bundle.manifest(), &settings.engine);
    Ok(Loaded { engine, serving, bundle: bundle.clone(), memory, _locked: locked })
}
