//! Looks after what is stored while it is served: all of it is hashed in the background, slowly; and the state directory must stay
//! in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use recurve_bundle::{Bundle, BundleError, Digest, hash_file};
use recurve_telemetry::event;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config::{Settings, VerifySettings};
use crate::node::Node;
use crate::store::{SELF, Store};
use crate::telemetry::alarm;

/// How often it is looked whether the state directory is in its place.
const LOOK: Duration = Duration::from_secs(5);
/// The least priority: whatever else computes goes first.
const NICE: i32 = 19;

/// Why models are damaged, by their digests.
type Damage = BTreeMap<Digest, String>;

/// What looks after the stored models as long as it lives.
#[derive(Debug)]
pub(super) struct Stored {
    damage: watch::Receiver<Damage>,
    _stop: Sender<()>,
    _look: AbortOnDropHandle<()>,
}

impl Stored {
    /// Begins. `bundle`: what is served where there is no store.
    pub(super) fn start(
        settings: &Settings,
        node: &Arc<Node>,
        store: Option<Arc<Store>>,
        bundle: Option<Bundle>,
    ) -> Self {
        let own = watch::Sender::new(Damage::default());
        let damage = store.as_ref().map_or_else(|| own.subscribe(), |store| store.damage());
        let look = look(Arc::clone(node), store.clone(), damage.clone());
        let (stop, stopped) = channel();
        let of = match (store, bundle) {
            (Some(store), _) => Some(Of::Store(store)),
            (None, Some(bundle)) => Some(Of::Bundle(Box::new(bundle), own)),
            (None, None) => None,
        };
        if let Some((of, settings)) = of.zip(settings.verify) {
            let hashing = Hashing { of, settings, stopped };
            if let Err(error) = std::thread::Builder::new().name("verify".to_owned()).spawn(move || hashing.run()) {
                error!(%error, "stored models are not verified: the system gives no thread");
            }
        }
        Self { damage, _stop: stop, _look: AbortOnDropHandle::new(tokio::spawn(look)) }
    }

    /// Ends when this model, which is served, is found to be damaged; returns in which way.
    pub(super) async fn damaged(&mut self, served: Digest) -> String {
        loop {
            if let Some(reason) = self.damage.borrow_and_update().get(&served) {
                return reason.clone();
            }
            if self.damage.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Raises alarms and clears them.
async fn look(node: Arc<Node>, store: Option<Arc<Store>>, mut damage: watch::Receiver<Damage>) {
    let mut was_in_place = true;
    loop {
        let reasons: BTreeSet<String> = damage.borrow_and_update().values().cloned().collect();
        let words = (!reasons.is_empty()).then(|| reasons.into_iter().collect::<Vec<_>>().join("; "));
        node.telemetry().set_alarm(alarm::MODEL_DAMAGED, words);
        if let Some(store) = store.clone() {
            let dir = store.dir().display().to_string();
            let in_place = spawn_blocking(move || store.is_in_place()).await.unwrap_or(true);
            if in_place != was_in_place {
                tell(&node, &dir, in_place);
            }
            was_in_place = in_place;
        }
        if let Ok(Err(_)) = timeout(LOOK, damage.changed()).await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Says that the state directory is gone, or there again.
fn tell(node: &Node, dir: &str, in_place: bool) {
    if in_place {
        node.telemetry().set_alarm(alarm::STATE_GONE, None);
        info!(event = event::STATE_BACK.name, state_dir = dir, "the state directory is in its place again");
        return;
    }
    let words = format!("{dir} was removed or replaced while the daemon runs");
    node.telemetry().set_alarm(alarm::STATE_GONE, Some(words));
    error!(
        event = event::STATE_GONE.name,
        state_dir = dir,
        "the state directory was removed or replaced: what is served is in memory only, and the next start has no model; bring the \
         directory back, or restart the daemon and deploy again"
    );
}

/// What is hashed.
#[derive(Debug)]
enum Of {
    Store(Arc<Store>),
    /// Damage of it is told to the sender.
    Bundle(Box<Bundle>, watch::Sender<Damage>),
}

/// The thread that hashes.
#[derive(Debug)]
struct Hashing {
    of: Of,
    settings: VerifySettings,
    /// Disconnected when it has to end.
    stopped: Receiver<()>,
}

/// How fast a pass may go on.
#[derive(Debug)]
struct Pace<'a> {
    rate: NonZeroU64,
    begun: Instant,
    bytes: u64,
    stopped: &'a Receiver<()>,
}

impl Pace<'_> {
    /// Waits as long as these bytes take at the rate; returns whether to go on.
    fn go_on(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::from_secs_f64(self.bytes as f64 / self.rate.get() as f64);
        let waiting = due.saturating_sub(self.begun.elapsed());
        matches!(self.stopped.recv_timeout(waiting), Err(RecvTimeoutError::Timeout))
    }

    fn is_stopped(&self) -> bool {
        !matches!(self.stopped.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout))
    }
}

impl Hashing {
    fn run(self) {
        // Where the system refuses, the rate alone bounds it.
        let _ = rustix::process::nice(NICE);
        loop {
            let mut pace = Pace { rate: self.settings.rate, begun: Instant::now(), bytes: 0, stopped: &self.stopped };
            let passed = match &self.of {
                Of::Store(store) => of_store(store, &mut pace),
                Of::Bundle(bundle, damage) => of_bundle(bundle, damage, &mut pace),
            };
            let (seconds, bytes) = (pace.begun.elapsed().as_secs(), pace.bytes);
            match passed {
                ControlFlow::Break(()) => return,
                ControlFlow::Continue(true) => info!(bytes, seconds, "stored models verified"),
                ControlFlow::Continue(false) => {}
            }
            let Some(every) = self.settings.every else { return };
            if !matches!(self.stopped.recv_timeout(every), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }
}

/// Hashes every blob of a store once, those of the active model first. Continues with whether all is whole; breaks when it has to
/// end.
fn of_store(store: &Arc<Store>, pace: &mut Pace<'_>) -> ControlFlow<(), bool> {
    let (mut seen, mut whole) = (BTreeSet::new(), true);
    let active = store.active();
    let mut models: Vec<Digest> = store.models().iter().map(|listed| listed.bundle).collect();
    models.sort_by_key(|bundle| Some(*bundle) != active);
    for bundle in models {
        for part in store.parts(bundle) {
            let digest = part.blob.digest;
            if !seen.insert(digest) {
                continue;
            }
            match store.check_part(&part, &mut |bytes| pace.go_on(bytes)) {
                Ok(found) => whole &= found.is_none(),
                Err(error) => {
                    whole = false;
                    warn!(%error, "a stored blob cannot be hashed");
                }
            }
            if pace.is_stopped() {
                return ControlFlow::Break(());
            }
            if active != Some(bundle) {
                // It may not push out what is served.
                store.drop_from_cache(&digest);
            }
        }
        // A blob that it lacked may have come with another model.
        if store.damage_of(&bundle).is_some() && store.is_complete(bundle) {
            match store.verify(bundle, SELF, &mut |_| {}) {
                Ok(_) => info!(%bundle, "a model that was damaged is whole again"),
                Err(_) => whole = false,
            }
        }
    }
    ControlFlow::Continue(whole)
}

/// The same of a bundle's folder, of which nothing is removed.
fn of_bundle(bundle: &Bundle, damage: &watch::Sender<Damage>, pace: &mut Pace<'_>) -> ControlFlow<(), bool> {
    let mut whole = true;
    for (what, blob) in bundle.blobs() {
        let path = bundle.blob(&blob.digest);
        let hashed = File::open(&path)
            .map_err(|source| BundleError::Io { action: "open", path: path.clone(), source })
            .and_then(|file| hash_file(&file, &path, what, &blob, &mut |bytes| pace.go_on(bytes)));
        match hashed {
            Ok(true) => {}
            Ok(false) => return ControlFlow::Break(()),
            Err(error) => {
                whole = false;
                let Some(words) = error.damage() else {
                    warn!(%error, "a blob of the bundle cannot be hashed");
                    continue;
                };
                let reason = format!("{what}: blob {} is damaged: {words}", blob.digest);
                error!(
                    event = event::MODEL_DAMAGED.name,
                    models = %bundle.digest(),
                    reason,
                    "the bundle is damaged: copy or export it again, and restart the daemon"
                );
                damage.send_modify(|damage| {
                    damage.entry(*bundle.digest()).or_insert(reason);
                });
            }
        }
    }
    ControlFlow::Continue(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_keeps_to_its_rate_and_ends_at_once() {
        let (stop, stopped) = channel();
        let rate = NonZeroU64::new(1000).unwrap();
        let mut pace = Pace { rate, begun: Instant::now(), bytes: 0, stopped: &stopped };
        assert!(pace.go_on(50) && pace.go_on(50));
        assert!(pace.begun.elapsed() >= Duration::from_millis(100), "{:?}", pace.begun.elapsed());
        drop(stop);
        assert!(!pace.go_on(1_000_000) && pace.is_stopped());
        assert!(pace.begun.elapsed() < Duration::from_secs(60));
    }
}
