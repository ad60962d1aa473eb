//! What stops a rollout: nothing new is begun, what waits or sends ends, and only a switch of models that a device was asked
//! for is waited for.

use tokio::sync::watch;

/// Why it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Too many devices failed.
    TooMany,
    /// Ctrl-C.
    Interrupted,
}

/// Stops a rollout.
#[derive(Debug, Clone)]
pub(crate) struct Halt(watch::Sender<Option<Why>>);

impl Halt {
    /// Not yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// From now on; the first reason counts.
    pub(crate) fn now(&self, why: Why) {
        self.0.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(why);
            first
        });
    }

    /// Whether, and why.
    pub(crate) fn why(&self) -> Option<Why> {
        *self.0.borrow()
    }

    /// Waits for it.
    pub(crate) async fn come(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}
