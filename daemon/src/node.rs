//! What this node serves at the moment. The engine's life sets it, every call reads it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::admission::Admission;
use crate::model::Model;

/// Where the node is in its life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The bundle is being loaded.
    Loading,
    /// There is no model yet.
    Empty,
    /// Requests are answered.
    Serving(Serving),
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
}

/// The node's phase and its open calls, shared by all listeners.
#[derive(Debug)]
pub struct Node {
    phase: watch::Sender<Phase>,
    calls: TaskTracker,
}

impl Node {
    /// A node that is loading.
    pub fn new() -> Arc<Self> {
        let calls = TaskTracker::new();
        calls.close();
        Arc::new(Self { phase: watch::Sender::new(Phase::Loading), calls })
    }

    /// Moves on to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Ends when the node begins to stop.
    pub async fn stopping(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is this node's own.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Stopping)).await;
    }

    /// Counts a call until the token is dropped.
    pub fn call(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Waits until no call is open.
    pub async fn idle(&self) {
        self.calls.wait().await;
    }
}
