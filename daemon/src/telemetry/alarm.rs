//! What the daemon itself complains of, beside the hardware.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The collector does not take what is sent.
pub(super) const COLLECTOR_AWAY: &str = "collector-away";
/// The history is in memory: the disk does not take it.
pub(super) const HISTORY_IN_MEMORY: &str = "history-in-memory";
/// What is stored of a model is damaged.
pub(crate) const MODEL_DAMAGED: &str = "model-damaged";
/// What is kept of trust is damaged.
pub(crate) const TRUST_DAMAGED: &str = "trust-damaged";
/// The state directory was removed or replaced.
pub(crate) const STATE_GONE: &str = "state-gone";

/// Alarms that are raised, and what is wrong.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<BTreeMap<&'static str, String>>);

impl Alarms {
    pub(super) fn set(&self, name: &'static str, words: Option<String>) {
        let mut raised = self.lock();
        match words {
            Some(words) => raised.insert(name, words),
            None => raised.remove(name),
        };
    }

    pub(super) fn raised(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|(name, words)| (*name, words.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // An entry is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
