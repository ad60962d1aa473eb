//! Orders to serve another model, and what their givers are told.

use std::sync::Arc;

use recurve_bundle::Digest;
use tokio::sync::mpsc;

use super::memory::NoMemory;
use crate::config::Settings;
use crate::engine::golden::GoldenError;
use crate::store::{Prepared, Pulls, Store, StoreError};
use crate::trust::{Trust, TrustError};

/// The way to the models that a node keeps.
#[derive(Debug, Clone)]
pub struct Models {
    /// Where they are.
    pub store: Arc<Store>,
    /// Fetches more of them.
    pub pulls: Arc<Pulls>,
    /// Whose are believed.
    pub trust: Arc<Trust>,
    /// What they run with.
    pub settings: Arc<Settings>,
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

impl Order {
    /// Tells of progress. There is room for every message; a giver that went away is told nothing.
    pub(super) fn tell(&self, progress: Progress) {
        let _ = self.tell.try_send(Ok(progress));
    }
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
    Prepared(Prepared),
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
    /// There is no memory for it.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The daemon stops.
    #[error("the node is shutting down: ask again when it is back")]
    Stopping,
    /// The model that is to make room computes, and cannot be ended.
    #[error("the model that is served cannot be ended: {0}; the daemon ends, and serves it again when it is started")]
    Stuck(String),
    /// It cannot be loaded.
    #[error("the model cannot be served here: {0}")]
    Unusable(String),
}
