//! What follows from what was found about the model that is served: it is confirmed, or it gives way to the one before, or the
//! daemon can only end.

use std::sync::Arc;
use std::time::Duration;

use recurve_bundle::Digest;
use recurve_telemetry::event;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::load::{Loaded, Means};
use super::{AGAIN, Deployment, Turn, Verdict, start};
use crate::Error;
use crate::grpc::Server;
use crate::node::Phase;
use crate::progress::Trouble;
use crate::store::{SELF, Store, StoreError};

impl Deployment {
    /// Draws the consequence.
    ///
    /// # Errors
    /// The daemon can only end: what a supervisor starts again is better.
    pub(crate) async fn judge(&mut self, turn: Turn, server: &Server) -> Result<(), Error> {
        let verdict = match turn {
            Turn::Verdict(verdict) => verdict,
            Turn::Damaged(reason) => return self.give_up(&reason, server).await,
            Turn::Mended => {
                self.come_back(server).await;
                return Ok(());
            }
        };
        match verdict {
            Verdict::Proved => {
                self.confirm().await;
                Ok(())
            }
            Verdict::Failed(reason) => match self.store.clone().filter(|_| self.node.probation().is_some()) {
                Some(store) => self.go_back(&store, &reason, server).await,
                None => Err(Error::EngineFailed(reason)),
            },
            Verdict::Stuck(reason) => {
                if let Some(store) = self.store.clone().filter(|_| self.node.probation().is_some()) {
                    let text = reason.clone();
                    go_back_on_disk(store, text).await?;
                }
                Err(Error::Stuck(reason))
            }
        }
    }

    /// The model that is served has proved itself.
    async fn confirm(&mut self) {
        self.node.set_probation(None);
        let Some((store, bundle)) = self.store.clone().zip(self.running.as_ref().map(|loaded| *loaded.bundle.digest()))
        else {
            return;
        };
        match spawn_blocking(move || store.confirm(bundle, SELF)).await {
            Ok(Ok(())) => {
                self.unconfirmed = false;
                info!(event = event::CONFIRMED.name, %bundle, "model confirmed");
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut self.unconfirmed, true) {
                    let seconds = AGAIN.as_secs();
                    error!(%bundle, %error, seconds, "the model is good, and the disk does not take that: tried again until it does");
                }
            }
            Err(_) => error!(%bundle, "confirming the model panicked"),
        }
    }

    /// What is stored of the model that is served is damaged: the one before it takes its place, or none.
    async fn give_up(&mut self, reason: &str, server: &Server) -> Result<(), Error> {
        if let Some(store) = self.store.clone().filter(|store| store.previous().is_some()) {
            match self.go_back(&store, reason, server).await {
                // The disk that damaged the model may take no more writes.
                Err(Error::Store(error)) => error!(%error, "the way back cannot be written"),
                done => return done,
            }
        }
        server.enter(Phase::Switching).await;
        self.watch = None;
        self.retire(Duration::ZERO).await;
        if self.store.is_some() {
            self.means.progress.in_trouble(Trouble::Models(reason.to_owned()));
            error!(reason, "the model that was served is damaged and there is none to go back to: deploy it again");
        } else {
            // The line that told of the damage says what to do.
            self.means.progress.in_trouble(Trouble::Bundle(reason.to_owned()));
        }
        server.enter(Phase::Empty).await;
        self.look_after();
        Ok(())
    }

    /// The active model was damaged, so that nothing is served, and is whole again: it is loaded as at a start.
    async fn come_back(&mut self, server: &Server) {
        let Some(store) = self.store.clone() else { return };
        let Some(bundle) = store.active().filter(|active| store.damage_of(active).is_none()) else { return };
        if self.running.is_some() || self.stopping.is_cancelled() {
            return;
        }
        server.enter(Phase::Switching).await;
        match open(self.means.clone(), store, bundle).await {
            Ok(loaded) => {
                info!(model = loaded.serving.model.name, %bundle, "the active model is whole again and is served");
                self.running = Some(loaded);
            }
            Err(reason) => {
                self.means.progress.in_trouble(Trouble::Models(reason.clone()));
                error!(%bundle, reason, "the active model is whole again and cannot be served: deploy one");
            }
        }
        server.enter(self.phase()).await;
        self.look_after();
    }

    /// The model that is served fails: the one before it takes its place, or none.
    async fn go_back(&mut self, store: &Arc<Store>, reason: &str, server: &Server) -> Result<(), Error> {
        server.enter(Phase::Switching).await;
        self.watch = None;
        // First the decision, then what follows from it: whatever happens now, the next start serves the model before.
        let (failed, back) = go_back_on_disk(Arc::clone(store), reason.to_owned()).await?;
        self.node.telemetry().rolled_back();
        self.retire(Duration::ZERO).await;
        let loaded = match back {
            None => None,
            Some(back) => match open(self.means.clone(), Arc::clone(store), back).await {
                Ok(loaded) => Some(loaded),
                Err(why) => {
                    let trouble = Trouble::Models(format!("{reason}; the one before: {why}"));
                    self.means.progress.in_trouble(trouble);
                    error!(bundle = %back, reason = why, "the model before cannot be served either: deploy one");
                    None
                }
            },
        };
        match &back {
            Some(back) => error!(event = event::ROLLED_BACK.name, from = %failed, to = %back, reason, "rolled back"),
            None => {
                self.means.progress.in_trouble(Trouble::Models(reason.to_owned()));
                error!(
                    event = event::ROLLED_BACK.name,
                    from = %failed,
                    reason,
                    "the model failed and there is none to go back to: deploy one"
                );
            }
        }
        self.running = loaded;
        server.enter(self.phase()).await;
        self.look_after();
        Ok(())
    }

    /// Ends the engine that runs and waits for it.
    pub(super) async fn retire(&mut self, grace: Duration) {
        if let Some(old) = self.running.take()
            && spawn_blocking(move || old.engine.retire(grace)).await.is_err()
        {
            error!("the engine of the model before panicked while it ended");
        }
    }
}

/// Loads a model of the store, or returns why it cannot be served.
async fn open(means: Means, store: Arc<Store>, bundle: Digest) -> Result<Loaded, String> {
    let loading = spawn_blocking(move || start::open(&means, &store, bundle)).await;
    loading.unwrap_or_else(|_| Err("loading it panicked".to_owned()))
}

/// Writes that the active model failed; gives it and the one that is active now.
async fn go_back_on_disk(store: Arc<Store>, reason: String) -> Result<(Digest, Option<Digest>), Error> {
    let written = spawn_blocking(move || {
        let failed = store.active().ok_or(StoreError::NoPrevious)?;
        Ok((failed, store.go_back(SELF, &reason)?))
    });
    written.await.unwrap_or_else(|_| Err(Error::Internal("going back panicked".into())))
}
