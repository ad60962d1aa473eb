//! Ending a run from another thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::RunOptions;

/// Ends the run in progress, if it is the one that was meant. Clones share the same run.
#[derive(Debug, Clone)]
pub struct Terminator {
    inner: Arc<Inner>,
}

struct Inner {
    options: RunOptions,
    running: Mutex<Running>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("running", &self.running).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Running {
    /// What the run in progress was begun for.
    tag: Option<u64>,
    terminated: bool,
}

impl Terminator {
    pub(crate) fn new() -> ort::Result<Self> {
        Ok(Self { inner: Arc::new(Inner { options: RunOptions::new()?, running: Mutex::default() }) })
    }

    /// Ends the run in progress if it was begun with this tag: it stops before its next node. Does nothing otherwise, so
    /// that a late call never ends somebody else's run.
    pub fn terminate(&self, tag: u64) {
        let mut running = self.lock();
        if running.tag == Some(tag) {
            running.terminated = true;
            if let Err(error) = self.inner.options.terminate() {
                tracing::warn!(%error, "a run could not be ended early");
            }
        }
    }

    pub(crate) fn options(&self) -> &RunOptions {
        &self.inner.options
    }

    /// Called before a run.
    pub(crate) fn begin(&self, tag: Option<u64>) {
        self.lock().tag = tag;
    }

    /// Called after a run; tells whether it was ended early.
    pub(crate) fn end(&self) -> bool {
        let mut running = self.lock();
        let terminated = std::mem::take(&mut *running).terminated;
        if terminated && let Err(error) = self.inner.options.unterminate() {
            tracing::error!(%error, "the engine cannot run again");
        }
        terminated
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        // Nothing in here panics half-way: the value is good whatever happened to another holder.
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
