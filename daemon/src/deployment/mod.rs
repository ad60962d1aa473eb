//! Which model is served: orders to change it are carried out one after the other, and a model that fails while it is on
//! probation gives way to the one before.
//!
//! A model's way here: the store verifies it, it is loaded beside the one that is served (or in its turn, where memory is
//! short), passes its golden test, becomes the active one by one durable write, and from then on answers new requests and
//! those that wait; the old one finishes what runs.

mod judge;
mod load;
mod memory;
mod order;
mod start;
mod stored;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use recurve_bundle::{Bundle, Digest};
use recurve_telemetry::event;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::Error;
use crate::config::Settings;
use crate::engine::load::Loader;
use crate::grpc::Server;
use crate::node::{Node, Phase};
use crate::store::{SELF, Store, StoreError};
use crate::system;
use crate::trust::Trust;
use load::{Loaded, Means, examined, load};
pub use memory::Room;
use memory::Way;
pub(crate) use memory::{ADVICE as MEMORY_ADVICE, needed};
pub use order::{DeployError, Models, Order, Progress};
use stored::Stored;
use watch::Watch;
pub(crate) use watch::{STEP_ENDING, Verdict};

/// How soon what the disk refused is written again.
const AGAIN: Duration = Duration::from_secs(5);

/// News of the served model, or of the active one while none is served.
#[derive(Debug)]
pub(crate) enum Turn {
    /// How it serves.
    Verdict(Verdict),
    /// What is stored of it is damaged, in this way.
    Damaged(String),
    /// The active model was damaged, so that nothing is served, and is whole again.
    Mended,
}

/// What is served, and what it takes to serve something else.
#[derive(Debug)]
pub(crate) struct Deployment {
    settings: Arc<Settings>,
    node: Arc<Node>,
    means: Means,
    store: Option<Arc<Store>>,
    trust: Option<Arc<Trust>>,
    running: Option<Loaded>,
    watch: Option<Watch>,
    /// Looks after what is stored, from when something may be served.
    stored: Option<Stored>,
    /// The model that is served has proved itself, and the disk does not take that yet.
    unconfirmed: bool,
    /// Engines that finish what runs.
    leaving: Vec<JoinHandle<()>>,
    /// The daemon is told to stop: what was not begun is not begun any more.
    stopping: CancellationToken,
}

impl Deployment {
    /// Loads what is to be served: the configuration's bundle, or the store's active model. Blocks.
    ///
    /// # Errors
    /// ONNX Runtime is missing, or the configuration's bundle cannot be served. A store's model that cannot be served gives
    /// way to the one before it, or to none.
    pub(crate) fn start(
        settings: Arc<Settings>,
        node: Arc<Node>,
        store: Option<Arc<Store>>,
        trust: Option<Arc<Trust>>,
        stopping: CancellationToken,
    ) -> Result<Self, Error> {
        let library = Loader::library(&settings.engine)?;
        node.found_onnxruntime(library.version());
        let means = Means { library, settings: Arc::clone(&settings), progress: Arc::clone(node.progress()) };
        let running = match (&settings.bundle, &store) {
            (Some(dir), _) => Some(start::configured(&means, dir)?),
            (None, Some(store)) => start::first(&means, store),
            (None, None) => None,
        };
        Ok(Self {
            settings,
            node,
            means,
            store,
            trust,
            running,
            watch: None,
            stored: None,
            unconfirmed: false,
            leaving: Vec::new(),
            stopping,
        })
    }

    /// Begins to look after the model that is served. One of the store that is not confirmed has from now on to prove itself.
    pub(crate) fn look_after(&mut self) {
        let served = self.store.as_ref().zip(self.running.as_ref());
        let open = served.is_some_and(|(store, loaded)| store.on_probation(loaded.bundle.digest()));
        let until = open.then(|| Instant::now() + self.settings.probation.time);
        self.node.set_probation(until);
        self.unconfirmed = false;
        self.watch =
            self.running.as_ref().map(|loaded| Watch::start(loaded, &self.settings, Arc::clone(&self.node), until));
        if self.stored.is_none() {
            let bundle = self.running.as_ref().map(|loaded| loaded.bundle.clone());
            self.stored = Some(Stored::start(&self.settings, &self.node, self.store.clone(), bundle));
        }
    }

    /// Ends when there is news of the served model, or of the active one while none is served.
    pub(crate) async fn verdict(&mut self) -> Turn {
        let Self { watch, stored, running, unconfirmed, .. } = self;
        let served = running.as_ref().map(|loaded| *loaded.bundle.digest());
        let watched = async {
            match watch {
                Some(watch) => watch.verdict().await,
                None => std::future::pending().await,
            }
        };
        let kept = async {
            match (stored, served) {
                (Some(stored), Some(served)) => Turn::Damaged(stored.damaged(served).await),
                (Some(stored), None) => {
                    stored.mended().await;
                    Turn::Mended
                }
                (None, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            turn = kept => turn,
            verdict = watched => Turn::Verdict(verdict),
            () = sleep(AGAIN), if *unconfirmed => Turn::Verdict(Verdict::Proved),
        }
    }

    /// What requests are answered with.
    pub(crate) fn phase(&self) -> Phase {
        self.running.as_ref().map_or(Phase::Empty, |loaded| Phase::Serving(loaded.serving.clone()))
    }

    /// Carries out an order, and tells what became of it.
    ///
    /// # Errors
    /// The daemon can only end: the engine that was to make room does not.
    pub(crate) async fn carry_out(&mut self, order: Order, server: &Server) -> Result<(), Error> {
        let (tell, who) = (order.tell.clone(), order.who.clone());
        let served = self.serve(order, server).await;
        if let Some(store) = &self.store {
            store.hold(None);
        }
        let stuck = match &served {
            Err(DeployError::Stuck(reason)) => Err(Error::Stuck(reason.clone())),
            _ => Ok(()),
        };
        match served {
            Ok(active) => {
                if let Progress::Active { bundle, name } = &active {
                    info!(event = event::ACTIVATED.name, model = %name, %bundle, by = who, "model activated");
                }
                let _ = tell.send(Ok(active)).await;
            }
            Err(error) => {
                warn!(event = event::NOT_CHANGED.name, %error, by = who, "the model was not changed");
                let _ = tell.send(Err(error)).await;
            }
        }
        stuck
    }

    async fn serve(&mut self, order: Order, server: &Server) -> Result<Progress, DeployError> {
        let Some(store) = self.store.clone() else { return Err(StoreError::NoPrevious.into()) };
        let bundle = order.bundle.or_else(|| store.previous()).ok_or(StoreError::NoPrevious)?;
        let active = |loaded: &Loaded| Progress::Active { bundle, name: loaded.serving.model.name.clone() };
        let is_served = |running: &&Loaded| *running.bundle.digest() == bundle && store.damage_of(&bundle).is_none();
        if let Some(running) = self.running.as_ref().filter(is_served) {
            return Ok(active(running));
        }
        store.hold(Some(bundle));
        // 1. The model is believed, and every blob is hashed, while the old model serves.
        let (opened, order) = {
            let (store, trust) = (Arc::clone(&store), self.trust.clone());
            blocking(move || {
                if let Some(trust) = trust {
                    let size = store.manifest_bytes(bundle)?;
                    match order.bundle {
                        Some(_) => trust.check(bundle, size, &order.who)?,
                        None => trust.check_back(bundle, size, &order.who)?,
                    }
                }
                Ok((store.verify(bundle, &order.who, &mut |_| {})?, order))
            })
            .await?
        };
        order.tell(Progress::Verified { bytes: opened.bytes() });
        if self.stopping.is_cancelled() {
            return Err(DeployError::Stopping);
        }
        // 2. There is room for it, beside the old one or in its turn.
        let needed = memory::needed(opened.info(), opened.manifest(), &self.settings.engine);
        let held = self.running.as_ref().map_or(0, |loaded| loaded.memory);
        let way = match memory::way(self.settings.switch, needed, system::memory::available(), held) {
            Ok(way) => way,
            Err(error) => {
                note(&store, bundle, &order.who, error.to_string()).await?;
                return Err(error.into());
            }
        };
        let old = match (way, &self.running) {
            (Way::InTurn, Some(running)) => {
                let old = running.bundle.clone();
                info!(from = running.serving.model.name, "the model that is served ends before the next one is loaded");
                server.enter(Phase::Switching).await;
                let (grace, watch) = (self.settings.grace, self.watch.take());
                let stuck = async {
                    match watch {
                        Some(mut watch) => watch.stuck().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.retire(grace) => {}
                    reason = stuck => return Err(DeployError::Stuck(reason)),
                }
                Some(old)
            }
            _ => None,
        };
        // 3. It is loaded, passes its golden test, and is the active one from one durable write on.
        let prepared = blocking({
            let (means, store) = (self.means.clone(), Arc::clone(&store));
            move || prepare(&means, &store, &opened, &order)
        });
        match prepared.await {
            Ok(loaded) => {
                // 4. What comes and what waits is answered by it; the old one finishes what runs.
                let active = active(&loaded);
                server.enter(Phase::Serving(loaded.serving.clone())).await;
                if let Some(old) = self.running.replace(loaded) {
                    self.remember_failure(&store, *old.bundle.digest()).await;
                    let grace = self.settings.grace;
                    self.leaving.retain(|leaving| !leaving.is_finished());
                    self.leaving.push(spawn_blocking(move || old.engine.retire(grace)));
                }
                self.look_after();
                Ok(active)
            }
            Err(error) => {
                if let Some(old) = old {
                    self.restore(old, server).await;
                }
                Err(error)
            }
        }
    }

    /// Notes what the model before did wrong while the next one was prepared: nobody goes back to it.
    async fn remember_failure(&mut self, store: &Arc<Store>, old: Digest) {
        let Some(reason) = self.watch.as_mut().and_then(Watch::failure) else { return };
        let store = Arc::clone(store);
        let noted = blocking(move || Ok(store.failed(old, SELF, &reason)?)).await;
        if let Err(error) = noted {
            error!(bundle = %old, %error, "the failure of the model before cannot be noted");
        }
    }

    /// Loads again the model that ended for one that failed.
    async fn restore(&mut self, bundle: Bundle, server: &Server) {
        let means = self.means.clone();
        match spawn_blocking(move || load(&means, &bundle)).await {
            Ok(Ok(loaded)) => self.running = Some(loaded),
            Ok(Err(error)) => error!(%error, "the model that was served cannot be loaded again"),
            Err(_) => error!("loading the model that was served panicked"),
        }
        server.enter(self.phase()).await;
        self.look_after();
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

/// Does what waits for the disk or computes for long.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeployError> + Send + 'static,
) -> Result<T, DeployError> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(DeployError::Unusable("preparing it panicked".to_owned())))
}

async fn note(store: &Arc<Store>, bundle: Digest, who: &str, result: String) -> Result<(), DeployError> {
    let (store, who) = (Arc::clone(store), who.to_owned());
    blocking(move || Ok(store.note("prepare", Some(bundle), &who, &result)?)).await
}

/// From a verified model to the active one.
fn prepare(means: &Means, store: &Store, bundle: &Bundle, order: &Order) -> Result<Loaded, DeployError> {
    let digest = *bundle.digest();
    let (loaded, prepared) = match examined(means, bundle) {
        Ok(prepared) => prepared,
        Err(error) => {
            store.note("prepare", Some(digest), &order.who, &error.to_string())?;
            return Err(error);
        }
    };
    let kept = store.prepared(digest, prepared.clone(), &order.who).and_then(|()| {
        order.tell(Progress::Prepared(prepared));
        store.activate(digest, &order.who)
    });
    match kept {
        Ok(()) => Ok(loaded),
        Err(error) => {
            loaded.engine.shutdown(Duration::ZERO);
            Err(error.into())
        }
    }
}
