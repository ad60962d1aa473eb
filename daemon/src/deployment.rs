//! Which model is served: orders to change it are carried out one after the other.
//!
//! A model's way here: the store verifies it, it is loaded beside the one that is served, passes its golden test, becomes
//! the active one by one durable write, and from then on answers new requests; the old one finishes what runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recurve_bundle::{Bundle, Digest};
use recurve_runtime::{Library, Weights};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use crate::Error;
use crate::admission::Admission;
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::golden::{Examined, GoldenError};
use crate::engine::load::Loader;
use crate::grpc::Server;
use crate::model::Model;
use crate::node::{Phase, Serving};
use crate::store::{Stage, Store, StoreError};
use crate::trust::{Trust, TrustError};
use crate::weights::Warming;

/// Who the daemon itself is, in the audit.
const SELF: &str = "recurved";

/// The way to the models that a node keeps.
#[derive(Debug, Clone)]
pub struct Models {
    /// Where they are.
    pub store: Arc<Store>,
    /// Whose are believed.
    pub trust: Arc<Trust>,
    /// Takes orders to serve another one.
    pub orders: mpsc::Sender<Order>,
}

/// An order to serve another model.
#[derive(Debug)]
pub struct Order {
    /// Which; none for the one that was active before.
    pub bundle: Option<Digest>,
    /// Who gave it.
    pub who: String,
    /// Where its progress goes, at most one message of each kind. Whoever gave the order may go away.
    pub tell: mpsc::Sender<Result<Progress, DeployError>>,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// This many bytes were hashed, and all is well.
    Verified {
        /// Bytes of all blobs.
        bytes: u64,
    },
    /// The golden test was passed.
    Prepared {
        /// What came out.
        examined: Examined,
        /// Whose kernels compute.
        kernels: &'static str,
    },
    /// It is served.
    Active {
        /// The model.
        bundle: Digest,
        /// Its name.
        name: String,
    },
}

/// Why an order was not carried out. The model before serves on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The golden test was not passed.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// It cannot be loaded.
    #[error("the model cannot be served here: {0}")]
    Unusable(String),
}

/// A model that was loaded.
#[derive(Debug)]
struct Loaded {
    engine: Engine,
    serving: Serving,
    bundle: Digest,
    /// Keeps the weights locked, where they are.
    _locked: Option<Weights>,
}

/// What is served, and what it takes to serve something else.
#[derive(Debug)]
pub(crate) struct Deployment {
    settings: Arc<Settings>,
    library: Library,
    store: Option<Arc<Store>>,
    trust: Option<Arc<Trust>>,
    running: Option<Loaded>,
    /// Until when the model that is served is on probation.
    probation: Option<Instant>,
    /// Engines that finish what runs.
    leaving: Vec<JoinHandle<()>>,
}

impl Deployment {
    /// Loads what is to be served: the configuration's bundle, or the store's active model. Blocks.
    ///
    /// # Errors
    /// ONNX Runtime is missing, or the configuration's bundle cannot be served. A store's model that cannot be served gives
    /// way to the one before it, or to none.
    pub(crate) fn start(
        settings: Arc<Settings>,
        store: Option<Arc<Store>>,
        trust: Option<Arc<Trust>>,
    ) -> Result<Self, Error> {
        let library = Loader::library(&settings.engine)?;
        let running = match (&settings.bundle, &store) {
            (Some(dir), _) => Some(load(&library, &settings, &Bundle::open(dir)?)?),
            (None, Some(store)) => first(&library, &settings, store)?,
            (None, None) => None,
        };
        let mut deployment = Self { settings, library, store, trust, running, probation: None, leaving: Vec::new() };
        deployment.begin_probation();
        Ok(deployment)
    }

    /// A model of the store that is not confirmed has from now on to prove itself.
    fn begin_probation(&mut self) {
        let served = self.store.as_ref().zip(self.running.as_ref());
        let open = served.is_some_and(|(store, loaded)| store.stage(&loaded.bundle) < Some(Stage::Confirmed));
        self.probation = open.then(|| Instant::now() + self.settings.probation.time);
    }

    /// Ends when the time of probation is over; never where there is none.
    pub(crate) fn probation(&self) -> impl Future<Output = ()> + 'static {
        let until = self.probation;
        async move {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The model that is served has proved itself.
    pub(crate) async fn confirm(&mut self) {
        self.probation = None;
        let Some((store, bundle)) = self.store.clone().zip(self.running.as_ref().map(|loaded| loaded.bundle)) else {
            return;
        };
        let confirmed = spawn_blocking(move || {
            store.advance(bundle, Stage::Confirmed, SELF)?;
            store.settle()
        });
        match confirmed.await {
            Ok(Ok(())) => info!(%bundle, "model confirmed"),
            Ok(Err(error)) => error!(%bundle, %error, "the model cannot be confirmed"),
            Err(_) => error!(%bundle, "confirming the model panicked"),
        }
    }

    /// What requests are answered with.
    pub(crate) fn phase(&self) -> Phase {
        self.running.as_ref().map_or(Phase::Empty, |loaded| Phase::Serving(loaded.serving.clone()))
    }

    /// Ends, with the reason, when the engine ended by itself.
    pub(crate) fn failed(&self) -> impl Future<Output = String> {
        let failed = self.running.as_ref().map(|loaded| loaded.engine.failed());
        async move {
            match failed {
                Some(failed) => failed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Carries out an order, and tells what became of it.
    pub(crate) async fn carry_out(&mut self, order: Order, server: &Server) {
        let (tell, who) = (order.tell.clone(), order.who.clone());
        match self.serve(order, server).await {
            Ok(active) => {
                if let Progress::Active { bundle, name } = &active {
                    info!(model = %name, %bundle, by = who, "model activated");
                }
                let _ = tell.send(Ok(active)).await;
            }
            Err(error) => {
                warn!(%error, by = who, "the model was not changed");
                let _ = tell.send(Err(error)).await;
            }
        }
    }

    async fn serve(&mut self, order: Order, server: &Server) -> Result<Progress, DeployError> {
        let Some(store) = self.store.clone() else { return Err(StoreError::NoPrevious.into()) };
        let bundle = order.bundle.or_else(|| store.previous()).ok_or(StoreError::NoPrevious)?;
        let active = |loaded: &Loaded| Progress::Active { bundle, name: loaded.serving.model.name.clone() };
        if let Some(running) = self.running.as_ref().filter(|running| running.bundle == bundle) {
            return Ok(active(running));
        }
        let (library, settings) = (self.library.clone(), Arc::clone(&self.settings));
        let trust = self.trust.clone();
        let prepared = spawn_blocking(move || {
            if let Some(trust) = trust {
                trust.check(bundle, store.manifest_bytes(bundle)?, &order.who)?;
            }
            prepare(&library, &settings, &store, bundle, &order)
        });
        let prepared = prepared.await;
        let loaded = prepared.unwrap_or_else(|_| Err(DeployError::Unusable("loading it panicked".to_owned())))?;
        let active = active(&loaded);
        server.enter(Phase::Serving(loaded.serving.clone())).await;
        if let Some(old) = self.running.replace(loaded) {
            let grace = self.settings.grace;
            self.leaving.retain(|leaving| !leaving.is_finished());
            self.leaving.push(spawn_blocking(move || old.engine.retire(grace)));
        }
        self.begin_probation();
        Ok(active)
    }

    /// Ends all engines within `grace`.
    ///
    /// # Errors
    /// An engine panicked.
    pub(crate) async fn stop(self, grace: Duration) -> Result<(), Error> {
        let mut leaving = self.leaving;
        leaving.extend(self.store.map(|store| {
            spawn_blocking(move || {
                if let Err(error) = store.settle() {
                    error!(%error, "the next start counts as one after a crash");
                }
            })
        }));
        leaving.extend(self.running.map(|loaded| spawn_blocking(move || loaded.engine.shutdown(grace))));
        for engine in leaving {
            if engine.await.is_err() {
                return Err(Error::Internal("the engine panicked while it stopped".into()));
            }
        }
        Ok(())
    }
}

/// The store's active model, the one before it where that cannot be served or ends the daemon again and again, or none.
fn first(library: &Library, settings: &Settings, store: &Store) -> Result<Option<Loaded>, Error> {
    let open = |bundle| store.bundle(bundle).map_err(Error::from).and_then(|opened| load(library, settings, &opened));
    let Some(active) = store.active() else { return Ok(None) };
    let starts = store.count_start()?;
    let reason = if starts > settings.probation.starts && store.previous().is_some() {
        format!("the daemon ended {} times while it was on probation", starts - 1)
    } else {
        match open(active) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(error) => error.to_string(),
        }
    };
    let Some(previous) = store.previous() else {
        store.note("serve", Some(active), SELF, &reason)?;
        error!(bundle = %active, reason, "the active model cannot be served and there is none to go back to: deploy one");
        return Ok(None);
    };
    match open(previous) {
        Ok(loaded) => {
            store.go_back(SELF, &reason)?;
            error!(from = %active, to = %previous, reason, "rolled back");
            Ok(Some(loaded))
        }
        Err(error) => {
            store.note("serve", Some(previous), SELF, &error.to_string())?;
            error!(bundle = %active, reason, %previous, %error, "neither the active model nor the one before can be served");
            Ok(None)
        }
    }
}

/// Everything up to the write that makes the model the active one.
fn prepare(
    library: &Library,
    settings: &Settings,
    store: &Store,
    bundle: Digest,
    order: &Order,
) -> Result<Loaded, DeployError> {
    // There is room for every message; a caller that went away is told nothing.
    let tell = |progress| drop(order.tell.try_send(Ok(progress)));
    let opened = store.verify(bundle, &order.who, &mut |_| {})?;
    tell(Progress::Verified { bytes: opened.bytes() });
    let prepared = examined(library, settings, &opened);
    let (loaded, progress) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            store.note("prepare", Some(bundle), &order.who, &error.to_string())?;
            return Err(error);
        }
    };
    store.advance(
        bundle,
        store.stage(&bundle).map_or(Stage::Prepared, |stage| stage.max(Stage::Prepared)),
        &order.who,
    )?;
    tell(progress);
    store.activate(bundle, &order.who)?;
    Ok(loaded)
}

fn examined(library: &Library, settings: &Settings, bundle: &Bundle) -> Result<(Loaded, Progress), DeployError> {
    let unusable = |error: Error| DeployError::Unusable(error.to_string());
    let golden = bundle.golden().map_err(|error| unusable(error.into()))?;
    let mut outcome = None;
    let loaded = load_with(library, settings, bundle, |graph| {
        outcome = Some((graph.examine(&golden), graph.kernels()));
    });
    let loaded = loaded.map_err(unusable)?;
    let Some((examined, kernels)) = outcome else {
        return Err(DeployError::Unusable("it was not examined".to_owned()));
    };
    match examined {
        Ok(examined) => Ok((loaded, Progress::Prepared { examined, kernels })),
        Err(error) => {
            loaded.engine.shutdown(Duration::ZERO);
            Err(error.into())
        }
    }
}

fn load(library: &Library, settings: &Settings, bundle: &Bundle) -> Result<Loaded, Error> {
    load_with(library, settings, bundle, |_| {})
}

/// Loads a bundle, has the graph looked at, and starts the engine on it.
fn load_with(
    library: &Library,
    settings: &Settings,
    bundle: &Bundle,
    look: impl FnOnce(&mut crate::engine::load::Graph),
) -> Result<Loaded, Error> {
    let loader = Loader::new(library.clone(), bundle, &settings.engine);
    let warming = Warming::start(bundle, settings.engine.lock_weights)
        .map_err(|error| Error::Internal(format!("the thread that reads weights cannot be started: {error}")))?;
    // A large tokenizer takes longer than the graph.
    let (model, graph) = rayon::join(|| Model::from_bundle(bundle, settings.limits.clone()), || loader.load());
    let (model, mut graph) = (Arc::new(model?), graph?);
    look(&mut graph);
    let locked = warming.locked()?;
    let admission = Admission::new(settings.engine.queue);
    let engine = Engine::start(graph, model.tokenizer.clone(), &settings.engine, Arc::clone(&admission))?;
    // Comparing kernels and reading a tokenizer take tens of megabytes for a moment.
    recurve_runtime::release_free_memory();
    Ok(Loaded { engine, serving: Serving { model, admission }, bundle: *bundle.digest(), _locked: locked })
}
