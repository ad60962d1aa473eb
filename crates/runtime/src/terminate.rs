//! Ending a run from another thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// When the run in progress began.
    since: Option<Instant>,
    /// What it was begun for.
    tag: Option<u64>,
    ended: Option<Ended>,
}

/// Why a run was ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nobody wants its result any more.
    Unwanted,
    /// It took longer than a step may.
    TooLong,
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
            self.end_now(&mut running, Ended::Unwanted);
        }
    }

    /// How long the run in progress takes already; none where there is none.
    pub fn running_for(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// Ends the run in progress if it takes longer than this.
    pub(crate) fn terminate_after(&self, limit: Duration) {
        let mut running = self.lock();
        if running.since.is_some_and(|since| since.elapsed() > limit) {
            self.end_now(&mut running, Ended::TooLong);
        }
    }

    fn end_now(&self, running: &mut Running, why: Ended) {
        running.ended = Some(why);
        if let Err(error) = self.inner.options.terminate() {
            tracing::warn!(%error, "a run could not be ended early");
        }
    }

    pub(crate) fn options(&self) -> &RunOptions {
        &self.inner.options
    }

    /// Called before a run.
    pub(crate) fn begin(&self, tag: Option<u64>) {
        *self.lock() = Running { since: Some(Instant::now()), tag, ended: None };
    }

    /// Called after a run; tells whether it was ended early.
    pub(crate) fn end(&self) -> Option<Ended> {
        let mut running = self.lock();
        let ended = std::mem::take(&mut *running).ended;
        if ended.is_some()
            && let Err(error) = self.inner.options.unterminate()
        {
            tracing::error!(%error, "the engine cannot run again");
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        // Nothing in here panics half-way: the value is good whatever happened to another holder.
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
