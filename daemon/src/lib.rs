//! The daemon: serves a RecurrentGemma bundle over gRPC.
//!
//! A token's way: [`grpc`] reads a call, [`request`] checks it, [`recurve_text`] makes tokens of it,
//! [`admission`] queues it, [`engine`] computes, and the answer streams back through [`grpc`].

pub mod admission;
pub mod config;
pub mod deployment;
pub mod doctor;
pub mod engine;
pub mod grpc;
pub mod log;
pub mod model;
pub mod node;
pub mod operate;
pub mod progress;
mod reload;
pub mod request;
pub mod store;
pub mod system;
pub mod telemetry;
pub mod trust;
mod weights;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use recurve_bundle::BundleError;
use recurve_runtime::WeightsError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config::{Address, Entry, Loaded, Settings};
use crate::deployment::{Deployment, Models, STEP_ENDING};
use crate::engine::EngineError;
use crate::engine::golden::GoldenError;
use crate::grpc::{Listener, Server, Tls, TlsError};
use crate::log::Log;
use crate::model::ModelError;
use crate::node::{Node, Phase};
use crate::operate::Operations;
use crate::store::{Pulls, Store, StoreError};
use crate::system::announce;
use crate::system::service::{self, Service};
use crate::telemetry::{Started, Telemetry, alarm};
use crate::trust::{Trust, TrustError};

/// Time for clients to take the end of their answers, after the engine's grace period.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How long requests wait while the first model is loaded, before they are told to come again.
const LOADING_PATIENCE: Duration = Duration::from_secs(5);

/// Orders that wait until the one before is carried out.
const ORDERS: usize = 4;

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
    /// The bundle served before, and does not answer as it should any more.
    #[error(
        "bundle {bundle}: {source}: its weights are damaged, or this machine computes wrongly: `agent-cli bundle verify DIR` hashes a \
         bundle's folder; deploy or copy it again"
    )]
    Golden {
        /// Its digest.
        bundle: String,
        /// What came out.
        source: GoldenError,
    },
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The weights cannot be locked in memory.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is trusted cannot be read, or the configuration's root is none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store cannot be opened.
    #[error("{0} (without `bundle`, --bundle DIR, the daemon keeps its models in `state_dir`, --state-dir DIR)")]
    Models(StoreError),
    /// The engine's thread ended while serving.
    #[error("the engine failed: {0}")]
    EngineFailed(String),
    /// A step of the engine goes on and cannot be ended.
    #[error("the engine is stuck: {0}")]
    Stuck(String),
    /// Metrics cannot be shown where they should be.
    #[error("{0}")]
    Prometheus(String),
    /// A part of the daemon that cannot fail did.
    #[error("{0}")]
    Internal(String),
}

/// What tells the daemon from outside to stop or to change.
pub struct Control<S> {
    /// Ends when it is to stop.
    pub shutdown: S,
    /// The configuration, each time it was read again.
    pub reloads: mpsc::Receiver<Loaded>,
}

/// Serves the configuration's bundle, or the models that are deployed, on the listeners until it is told to stop, then finishes
/// what runs within the grace period. `values`: every key of the configuration with its value.
///
/// Calls are accepted from the first moment; requests wait a little for the engine, and are answered UNAVAILABLE when it takes
/// longer.
///
/// # Errors
/// The bundle cannot be served, or the engine failed.
pub async fn run(
    settings: Settings,
    values: Vec<Entry>,
    log: Log,
    listeners: Vec<Listener>,
    control: Control<impl Future<Output = ()> + Send + 'static>,
) -> Result<(), Error> {
    let reached: Vec<Address> = listeners.iter().map(|listener| listener.local().clone()).collect();
    let listen: Vec<String> = reached.iter().map(ToString::to_string).collect();
    let addresses = listen.join(",");
    let tls = settings.tls.as_ref().map(Tls::load).transpose()?;
    for concern in tls.iter().flat_map(Tls::concerns) {
        warn!("{concern}");
    }
    let encrypted = tls.is_some();
    let open = reached.iter().filter(|address| !encrypted && !address.is_local());
    let _warnings: Vec<_> = open.map(warn_of_open_address).collect();
    let settings = Arc::new(settings);
    let store = open_store(&settings).await?;
    let prometheus = match settings.telemetry.prometheus {
        None => None,
        Some(address) => Some(telemetry::prometheus::bind(address).await.map_err(Error::Prometheus)?),
    };
    let Started { telemetry, keeper } = start_telemetry(&settings).await?;
    log.attach(&telemetry);
    let node = Node::new(settings.engine.queue, LOADING_PATIENCE, Arc::clone(&telemetry));
    let keeping = Keeping::begin(keeper);
    let _shown = prometheus.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            info!(listen = %address, "metrics are shown to Prometheus");
        }
        AbortOnDropHandle::new(tokio::spawn(telemetry::prometheus::serve(listener, Arc::clone(&telemetry))))
    });
    let _announcement = settings.announce.then(|| announce::start(&node, &reached, encrypted));
    // Heard also while an order is carried out.
    let stopping = CancellationToken::new();
    let _told = Service::start(
        &node,
        settings.engine.step_limit + STEP_ENDING,
        settings.grace + LAST_ANSWERS,
        stopping.clone(),
    );
    let operations = Operations { settings: Arc::clone(&settings), values: values.into(), listen, log, telemetry, tls };
    // The last reading is of it, too.
    let _alive = Arc::clone(&node);
    let outcome = serve(settings, node, store, operations, (listeners, &addresses), control, stopping).await;
    // Whatever the end, what is known of it is written.
    keeping.finish().await;
    outcome
}

/// What looks after telemetry.
struct Keeping {
    stopped: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Keeping {
    fn begin(keeper: telemetry::Keeper) -> Self {
        let stopped = CancellationToken::new();
        Self { task: tokio::spawn(keeper.run(stopped.clone())), stopped }
    }

    async fn finish(self) {
        self.stopped.cancel();
        if self.task.await.is_err() {
            error!("what looks after telemetry panicked");
        }
    }
}

/// Serves until `shutdown`.
async fn serve(
    settings: Arc<Settings>,
    node: Arc<Node>,
    store: Option<Arc<Store>>,
    operations: Operations,
    (listeners, addresses): (Vec<Listener>, &str),
    control: Control<impl Future<Output = ()> + Send + 'static>,
    stopping: CancellationToken,
) -> Result<(), Error> {
    let Control { shutdown, mut reloads } = control;
    let trust = open_trust(&settings, store.clone()).await?;
    node.telemetry().set_alarm(alarm::TRUST_DAMAGED, trust.as_ref().and_then(|trust| trust.damage()));
    let _clock = trust.as_ref().map(Trust::follow_clock);
    let (orders, mut inbox) = mpsc::channel(ORDERS);
    let models = store.clone().zip(trust.clone()).map(|(store, trust)| {
        let pulls = Pulls::new(Arc::clone(&store), settings.registry.clone());
        Models { store, pulls, trust, settings: Arc::clone(&settings), orders }
    });
    let server = Server::start(&node, listeners, &settings.limits, models, operations.clone())
        .await
        .map_err(|error| Error::Internal(format!("the services cannot be set up: {error}")))?;
    let _shutdown = AbortOnDropHandle::new(tokio::spawn({
        let stopping = stopping.clone();
        async move {
            shutdown.await;
            stopping.cancel();
        }
    }));

    let folder = settings.bundle.as_ref().unwrap_or(&settings.state_dir);
    info!(from = %folder.display(), listen = %addresses, "loading");
    let mut loading = spawn_blocking({
        let (settings, node, stopping) = (Arc::clone(&settings), Arc::clone(&node), stopping.clone());
        move || Deployment::start(settings, node, store, trust, stopping)
    });
    let started = tokio::select! {
        started = &mut loading => started,
        () = stopping.cancelled() => {
            // ONNX Runtime cannot be stopped while it loads: let it finish, so that it ends in order. Who waits for the model is told.
            server.enter(Phase::Stopping).await;
            server.finish(LAST_ANSWERS).await;
            if let Ok(Ok(deployment)) = loading.await {
                let _ = deployment.stop(Duration::ZERO).await;
            }
            return Ok(());
        }
    };
    let started = started.unwrap_or_else(|_| Err(Error::Internal("loading the bundle panicked".into())));
    let mut deployment = match started {
        Ok(deployment) => deployment,
        Err(error) => {
            server.enter(Phase::Stopping).await;
            server.finish(LAST_ANSWERS).await;
            return Err(error);
        }
    };
    let phase = deployment.phase();
    let (model, bundle) = match &phase {
        Phase::Serving(serving) => (serving.model.name.clone(), serving.model.bundle.clone()),
        _ => ("none: deploy one with `agent-cli deploy`".to_owned(), String::new()),
    };
    server.enter(phase).await;
    deployment.look_after();
    // Only now: who reads this line may ask at once.
    info!(listen = %addresses, model, bundle, "ready");
    service::ready();
    let _reloads = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(loaded) = reloads.recv().await {
            service::reloading();
            reload::reload(&operations, loaded);
            service::ready();
        }
    }));

    let outcome = loop {
        tokio::select! {
            () = stopping.cancelled() => break Ok(()),
            verdict = deployment.verdict() => match deployment.judge(verdict, &server).await {
                Ok(()) => {}
                // Its thread cannot be waited for.
                Err(error @ Error::Stuck(_)) => return Err(error),
                Err(error) => break Err(error),
            },
            Some(order) = inbox.recv() => {
                let mut carried = pin!(deployment.carry_out(order, &server));
                tokio::select! {
                    done = &mut carried => done?,
                    // An order is carried to its next end; requests are told at once.
                    () = stopping.cancelled() => {
                        server.enter(Phase::Stopping).await;
                        carried.await?;
                    }
                }
            }
        }
    };
    // Orders that wait are told that the node stops.
    drop(inbox);
    server.enter(Phase::Stopping).await;
    server.drain();
    deployment.stop(settings.grace).await?;
    server.finish(LAST_ANSWERS).await;
    info!("stopped");
    outcome
}

/// What is measured, and what was.
async fn start_telemetry(settings: &Arc<Settings>) -> Result<Started, Error> {
    let settings = Arc::clone(settings);
    let started = spawn_blocking(move || Telemetry::start(&settings)).await;
    let started = started.map_err(|_| Error::Internal("starting telemetry panicked".into()))?;
    started.map_err(|error| Error::Internal(error.to_string()))
}

/// The models that this daemon keeps, where its configuration names no bundle.
async fn open_store(settings: &Arc<Settings>) -> Result<Option<Arc<Store>>, Error> {
    if settings.bundle.is_some() {
        return Ok(None);
    }
    let dir = settings.state_dir.clone();
    let opened = spawn_blocking(move || Store::open(&dir)).await;
    let opened = opened.map_err(|_| Error::Internal("opening the store panicked".into()))?;
    Ok(Some(Arc::new(opened.map_err(Error::Models)?)))
}

/// What is trusted of these models.
async fn open_trust(settings: &Arc<Settings>, store: Option<Arc<Store>>) -> Result<Option<Arc<Trust>>, Error> {
    let Some(store) = store else { return Ok(None) };
    let settings = Arc::clone(settings);
    let opened = spawn_blocking(move || Trust::open(&settings.state_dir, &settings.trust, store)).await;
    Ok(Some(Arc::new(opened.map_err(|_| Error::Internal("opening the trust panicked".into()))??)))
}

/// Says it until it is heard: now, and then every ten minutes while the handle lives.
fn warn_of_open_address(address: &Address) -> AbortOnDropHandle<()> {
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
