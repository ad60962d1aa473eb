//! What this node serves at the moment. The engine's life sets it, every call reads it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use recurve_runtime::Terminator;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use crate::admission::Admission;
use crate::engine::meter::Meter;
use crate::model::Model;
use crate::progress::Progress;
use crate::telemetry::Telemetry;

/// Where the node is in its life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The bundle is being loaded.
    Loading,
    /// There is no model.
    Empty,
    /// Requests are answered.
    Serving(Serving),
    /// One model ends and another one is loaded in its place: requests wait for it.
    Switching,
    /// No new requests; what runs may finish.
    Stopping,
}

/// What requests are answered with.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The model.
    pub model: Arc<Model>,
    /// The way into the engine.
    pub admission: Arc<Admission>,
    /// What became of requests.
    pub counts: Arc<Counts>,
    /// What the engine tells of itself.
    pub meter: Arc<Meter>,
    /// What knows how long the step in progress takes.
    pub terminator: Terminator,
    /// Whose kernels compute.
    pub kernels: &'static str,
    /// Requests that are computed at the same time.
    pub rows: usize,
}

/// Requests that the engine was given.
#[derive(Debug, Default)]
pub struct Counts {
    /// Whole answers.
    pub answered: AtomicU64,
    /// Those that the engine or the model failed.
    pub failed: AtomicU64,
}

impl Counts {
    /// Counts one more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a request is not answered at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServing {
    /// The bundle is being loaded.
    Loading,
    /// There is no model.
    Empty,
    /// As many requests wait for a new model as may.
    Full,
    /// The node stops.
    Stopping,
    /// An operator told it to take no new requests.
    Draining,
}

/// The node's phase and its open calls, shared by all listeners.
#[derive(Debug)]
pub struct Node {
    phase: watch::Sender<Phase>,
    calls: TaskTracker,
    /// Calls that ever began.
    begun: AtomicU64,
    draining: watch::Sender<bool>,
    /// Of every model that was served, the last one of the same name last.
    meters: Mutex<Vec<(String, Arc<Meter>)>>,
    telemetry: Arc<Telemetry>,
    onnxruntime: OnceLock<String>,
    /// Requests that wait for a model.
    places: Semaphore,
    /// How long they wait for the first one.
    patience: Duration,
    progress: Arc<Progress>,
    started: Instant,
    probation: Mutex<Option<Instant>>,
}

impl Node {
    /// A node that is loading. `waiting`: most requests that wait for a model; `patience`: how long they wait for the first one.
    pub fn new(waiting: usize, patience: Duration, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let calls = TaskTracker::new();
        calls.close();
        let node = Arc::new(Self {
            phase: watch::Sender::new(Phase::Loading),
            calls,
            begun: AtomicU64::new(0),
            patience,
            places: Semaphore::new(waiting.min(Semaphore::MAX_PERMITS)),
            draining: watch::Sender::new(false),
            meters: Mutex::default(),
            telemetry,
            onnxruntime: OnceLock::new(),
            progress: Arc::default(),
            started: Instant::now(),
            probation: Mutex::new(None),
        });
        node.telemetry.look_at(&node);
        node
    }

    /// What the node knows of itself.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// How far the loading of a model is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The version of ONNX Runtime, once it was found.
    pub fn onnxruntime(&self) -> Option<&str> {
        self.onnxruntime.get().map(String::as_str)
    }

    /// ONNX Runtime was found.
    pub fn found_onnxruntime(&self, version: String) {
        // Once in a process.
        let _ = self.onnxruntime.set(version);
    }

    /// Moves on to another phase; none follows [`Phase::Stopping`].
    pub fn enter(&self, phase: Phase) {
        if let Phase::Serving(serving) = &phase {
            let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
            if !meters.iter().any(|(_, meter)| Arc::ptr_eq(meter, &serving.meter)) {
                meters.push((serving.model.name.clone(), Arc::clone(&serving.meter)));
            }
        }
        self.phase.send_if_modified(|now| {
            let goes_on = !matches!(now, Phase::Stopping);
            if goes_on {
                *now = phase;
            }
            goes_on
        });
    }

    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Tells of every change of the phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// What requests are answered with; waits for it while one model takes another's place, and for a moment while the first one
    /// is loaded: whoever comes while the daemon is started again gets an answer, a little later.
    ///
    /// # Errors
    /// No model is served, and none comes in a moment.
    pub async fn serving(&self) -> Result<Serving, NotServing> {
        if self.is_draining() {
            return Err(NotServing::Draining);
        }
        let now = |phase: &Phase| match phase {
            Phase::Serving(serving) => Some(Ok(serving.clone())),
            Phase::Empty => Some(Err(NotServing::Empty)),
            Phase::Stopping => Some(Err(NotServing::Stopping)),
            Phase::Loading | Phase::Switching => None,
        };
        if let Some(serving) = now(&self.phase.borrow()) {
            return serving;
        }
        let _place = self.places.try_acquire().map_err(|_| NotServing::Full)?;
        let mut phases = self.phase.subscribe();
        let patience = sleep(self.patience);
        tokio::pin!(patience);
        loop {
            let loading = matches!(*phases.borrow(), Phase::Loading);
            if let Some(serving) = now(&phases.borrow_and_update()) {
                return serving;
            }
            tokio::select! {
                changed = phases.changed() => if changed.is_err() {
                    return Err(NotServing::Stopping);
                },
                () = &mut patience, if loading => return Err(NotServing::Loading),
            }
        }
    }

    /// Another one with each start of the daemon.
    pub fn instance(&self) -> Uuid {
        self.telemetry.instance()
    }

    /// Tokens that each model read and made since the daemon started.
    pub fn tokens(&self) -> BTreeMap<String, (u64, u64)> {
        let mut tokens: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        // Only ever added to.
        for (model, meter) in self.meters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum = tokens.entry(model.clone()).or_default();
            sum.0 += meter.input_tokens();
            sum.1 += meter.output_tokens();
        }
        tokens
    }

    /// No new requests from now on, or again.
    pub fn drain(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    /// Whether new requests are refused although there is a model.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tells of every change of it.
    pub fn drains(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// How long the daemon runs.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The model that is served is on probation until then, or on none.
    pub fn set_probation(&self, until: Option<Instant>) {
        *self.lock() = until;
    }

    /// What is left of the probation.
    pub fn probation(&self) -> Option<Duration> {
        self.lock().map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A moment is written whole.
        self.probation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the node begins to stop.
    pub async fn stopping(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is this node's own.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Stopping)).await;
    }

    /// Counts a call until the token is dropped.
    pub fn call(&self) -> TaskTrackerToken {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.calls.token()
    }

    /// How many calls ever began, while none is open; none while one is.
    pub fn idle_since(&self) -> Option<u64> {
        self.calls.is_empty().then(|| self.begun.load(Ordering::Relaxed))
    }

    /// Waits until no call is open.
    pub async fn idle(&self) {
        self.calls.wait().await;
    }
}
