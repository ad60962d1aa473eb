//! How far the loading of a model is, for whoever looks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of the model that is being loaded, if one is.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    part: Option<Part>,
    trouble: Option<Trouble>,
}

/// Why nothing is served although there is a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// None of the models of the store can be served, for this reason. A deployment ends it.
    Models(String),
    /// The configuration's bundle is damaged, in this way. A restart with a whole one ends it: nothing can be deployed.
    Bundle(String),
}

impl Trouble {
    /// The reason, without advice.
    pub fn reason(&self) -> &str {
        match self {
            Self::Models(reason) | Self::Bundle(reason) => reason,
        }
    }
}

/// What is done of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The model's name.
    pub model: String,
    /// Bytes of its weights that are in memory.
    pub done: u64,
    /// Bytes of its weights.
    pub total: u64,
}

impl Part {
    /// Whole per cent of the weights that are in memory.
    pub fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.done) * 100 / u128::from(self.total.max(1))).unwrap_or(100).min(100)
    }
}

/// A loading that goes on; it is over when this is dropped.
#[derive(Debug)]
pub struct Underway(Arc<Progress>);

impl Progress {
    /// A model of this many bytes of weights begins to be loaded.
    pub fn begin(self: &Arc<Self>, model: &str, total: u64) -> Underway {
        let part = Some(Part { model: model.to_owned(), done: 0, total });
        *self.lock() = State { part, trouble: None };
        Underway(Arc::clone(self))
    }

    /// More of the weights is in memory.
    pub fn advance(&self, bytes: u64) {
        if let Some(part) = self.lock().part.as_mut() {
            part.done = part.done.saturating_add(bytes);
        }
    }

    /// How far it is.
    pub fn now(&self) -> Option<Part> {
        self.lock().part.clone()
    }

    /// There are models, and none can be served.
    pub fn in_trouble(&self, trouble: Trouble) {
        self.lock().trouble = Some(trouble);
    }

    /// Why none of the models that there are is served; none where one is, or there are none.
    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.lock().part = None;
    }
}
