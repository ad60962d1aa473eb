//! The daemon: serves a RecurrentGemma bundle over gRPC.
//!
//! A token's way: [`grpc`] reads a call, [`request`] checks it, [`tokenizer`] and [`template`] make tokens of it,
//! [`admission`] queues it, [`engine`] computes, and the answer streams back through [`grpc`].

pub mod admission;
pub mod config;
pub mod engine;
pub mod grpc;
pub mod model;
pub mod node;
pub mod request;
pub mod store;
pub mod system;
pub mod template;
pub mod tokenizer;
mod weights;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use recurve_bundle::{Bundle, BundleError};
use recurve_runtime::{Weights, WeightsError};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::admission::Admission;
use crate::config::Settings;
use crate::engine::load::Loader;
use crate::engine::{Engine, EngineError};
use crate::grpc::{Listener, Server};
use crate::model::{Model, ModelError};
use crate::node::{Node, Phase, Serving};
use crate::weights::Warming;

/// Time for clients to take the end of their answers, after the engine's grace period.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How often an address without protection is warned of.
const OPEN_WARNING: Duration = Duration::from_secs(600);

/// Why the daemon ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle cannot be opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The weights cannot be locked in memory.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The engine's thread ended while serving.
    #[error("the engine failed: {0}")]
    EngineFailed(String),
    /// A part of the daemon that cannot fail did.
    #[error("{0}")]
    Internal(String),
}

/// What was loaded.
struct Loaded {
    engine: Engine,
    serving: Serving,
    /// Keeps the weights locked, where they are.
    locked: Option<Weights>,
}

/// Serves the bundle on the listeners until `shutdown`, then finishes what runs within the grace period.
///
/// Calls are accepted from the first moment, and answered UNAVAILABLE until the engine is up.
///
/// # Errors
/// The bundle cannot be served, or the engine failed.
pub async fn run(
    settings: Settings,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let addresses: Vec<String> = listeners.iter().map(|listener| listener.local().to_string()).collect();
    let addresses = addresses.join(",");
    let open = listeners.iter().map(Listener::local).filter(|address| !address.is_local());
    let _warnings: Vec<_> = open.map(warn_of_open_address).collect();
    let node = Node::new();
    let server = Server::start(&node, listeners, &settings.limits)
        .await
        .map_err(|error| Error::Internal(format!("the services cannot be set up: {error}")))?;
    let mut shutdown = pin!(shutdown);
    let grace = settings.grace;

    info!(bundle = %settings.bundle.display(), listen = %addresses, "loading");
    let mut loading = spawn_blocking(move || load(&settings));
    let loaded = tokio::select! {
        loaded = &mut loading => loaded,
        () = &mut shutdown => {
            // ONNX Runtime cannot be stopped while it loads: let it finish, so that it ends in order.
            server.finish(Duration::ZERO).await;
            if let Ok(Ok(loaded)) = loading.await {
                let _ = spawn_blocking(|| loaded.engine.shutdown(Duration::ZERO)).await;
            }
            return Ok(());
        }
    };
    let loaded = loaded.unwrap_or_else(|_| Err(Error::Internal("loading the bundle panicked".into())));
    let Loaded { engine, serving, locked: _locked } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            server.finish(Duration::ZERO).await;
            return Err(error);
        }
    };
    let model = Arc::clone(&serving.model);
    server.enter(Phase::Serving(serving)).await;
    // Only now: who reads this line may ask at once.
    info!(listen = %addresses, model = %model.name, bundle = %model.bundle, "ready");

    let outcome = tokio::select! {
        () = &mut shutdown => Ok(()),
        reason = engine.failed() => Err(Error::EngineFailed(reason)),
    };
    server.enter(Phase::Stopping).await;
    server.drain();
    if spawn_blocking(move || engine.shutdown(grace)).await.is_err() {
        return Err(Error::Internal("the engine panicked while it stopped".into()));
    }
    server.finish(LAST_ANSWERS).await;
    info!("stopped");
    outcome
}

/// Opens the bundle and starts the engine on it.
fn load(settings: &Settings) -> Result<Loaded, Error> {
    let bundle = Bundle::open(&settings.bundle)?;
    let loader = Loader::new(&bundle, &settings.engine)?;
    let warming = Warming::start(&bundle, settings.engine.lock_weights)
        .map_err(|error| Error::Internal(format!("the thread that reads weights cannot be started: {error}")))?;
    // A large tokenizer takes longer than the graph.
    let (model, graph) = rayon::join(|| Model::from_bundle(&bundle, settings.limits.clone()), || loader.load());
    let (model, graph) = (Arc::new(model?), graph?);
    let locked = warming.locked()?;
    let admission = Admission::new(settings.engine.queue);
    let engine = Engine::start(graph, model.tokenizer.clone(), &settings.engine, Arc::clone(&admission))?;
    // Comparing kernels and reading a tokenizer take tens of megabytes for a moment.
    recurve_runtime::release_free_memory();
    Ok(Loaded { engine, serving: Serving { model, admission }, locked })
}

/// Says it until it is heard: now, and then every ten minutes while the handle lives.
fn warn_of_open_address(address: &config::Address) -> AbortOnDropHandle<()> {
    let address = address.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut tick = tokio::time::interval(OPEN_WARNING);
        loop {
            tick.tick().await;
            warn!(
                listen = %address,
                "INSECURE: other machines can reach this address without encryption or identity; everyone on that \
                 network can use the model and read what others ask it"
            );
        }
    }))
}
