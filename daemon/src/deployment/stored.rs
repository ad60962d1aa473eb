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
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config::{Settings, VerifySettings};
use crate::node::Node;
use crate::store::{Checked, SELF, Store};
use crate::telemetry::alarm;

/// How often it is looked whether the state directory is in its place.
const LOOK: Duration = Duration::from_secs(5);
/// The lowest CPU priority: whatever else computes goes first. Where the scheduler of the disk knows priorities, Linux derives the
/// thread's from this one: the lowest of the class "best effort".
const NICE: i32 = 19;

/// Why models are damaged, by their digests.
type Damage = BTreeMap<Digest, String>;

/// What looks after the stored models as long as it lives.
#[derive(Debug)]
pub(super) struct Stored {
    damage: watch::Receiver<Damage>,
    /// Notified when the active model was damaged and is whole again.
    mended: Arc<Notify>,
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
        let mended = Arc::new(Notify::new());
        let (stop, stopped) = channel();
        let of = match (store, bundle) {
            (Some(store), _) => Some(Of::Store(store, Arc::clone(&mended))),
            (None, Some(bundle)) => Some(Of::Bundle(Box::new(bundle), own)),
            (None, None) => None,
        };
        if let Some((of, settings)) = of.zip(settings.verify) {
            let hashing = Hashing { of, settings, stopped };
            if let Err(error) = std::thread::Builder::new().name("verify".to_owned()).spawn(move || hashing.run()) {
                error!(%error, "stored models are not verified: the system gives no thread");
            }
        }
        Self { damage, mended, _stop: stop, _look: AbortOnDropHandle::new(tokio::spawn(look)) }
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

    /// Ends when the active model was damaged and is found whole again.
    pub(super) async fn mended(&mut self) {
        self.mended.notified().await;
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
    /// The models of a store. The other one is notified when the active model was damaged and is whole again.
    Store(Arc<Store>, Arc<Notify>),
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
                Of::Store(store, mended) => of_store(store, mended, &mut pace),
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
fn of_store(store: &Arc<Store>, mended: &Notify, pace: &mut Pace<'_>) -> ControlFlow<(), bool> {
    // The blobs that were hashed, and whether each holds what its name says.
    let (mut seen, mut whole) = (BTreeMap::new(), true);
    let active = store.active();
    let mut models: Vec<Digest> = store.models().iter().map(|listed| listed.bundle).collect();
    models.sort_by_key(|bundle| Some(*bundle) != active);
    for bundle in models {
        for part in store.parts(bundle) {
            let digest = part.blob.digest;
            if seen.contains_key(&digest) {
                continue;
            }
            let checked = store.check_part(&part, &mut |bytes| pace.go_on(bytes));
            if pace.is_stopped() {
                return ControlFlow::Break(());
            }
            seen.insert(digest, matches!(checked, Ok(Checked::Whole)));
            match checked {
                Ok(Checked::Whole | Checked::Unsure | Checked::Absent) => {}
                Ok(Checked::Damaged(_)) => whole = false,
                Err(error) => {
                    whole = false;
                    warn!(%error, "a stored blob cannot be hashed");
                }
            }
            if active != Some(bundle) {
                // It may not push out what is served.
                store.drop_from_cache(&digest);
            }
        }
        // Its missing blobs may have come, or somebody put them back. All of its blobs were hashed just now.
        let is_whole = || store.parts(bundle).iter().all(|part| seen.get(&part.blob.digest) == Some(&true));
        if store.damage_of(&bundle).is_some() && store.is_complete(bundle) && is_whole() {
            match store.found_whole(bundle, SELF) {
                Ok(()) => {
                    info!(%bundle, "a model that was damaged is whole again");
                    if store.active() == Some(bundle) {
                        mended.notify_one();
                    }
                }
                Err(error) => warn!(%bundle, %error, "a model is whole again, and that cannot be recorded"),
            }
        }
    }
    // One that lacks a blob is damaged until the blob is there again.
    let is_damaged = !store.damage().borrow().is_empty();
    ControlFlow::Continue(whole && !is_damaged)
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
                // It is told once: all of the bundle has to be brought again, and nothing is served until then.
                if damage.borrow().contains_key(bundle.digest()) {
                    continue;
                }
                let reason = format!("{what}: blob {} is damaged: {words}", blob.digest);
                error!(
                    event = event::MODEL_DAMAGED.name,
                    models = %bundle.digest(),
                    reason,
                    "the bundle is damaged and is not served: copy or export the bundle again, and restart the daemon"
                );
                damage.send_modify(|damage| {
                    damage.insert(*bundle.digest(), reason);
                });
            }
        }
    }
    let is_damaged = !damage.borrow().is_empty();
    ControlFlow::Continue(whole && !is_damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::tests::{open, prepare, sent};

    /// One pass over a store: whether all is whole, and the bytes that were hashed at the rate.
    fn pass(store: &Arc<Store>, mended: &Notify) -> (bool, u64) {
        let (_stop, stopped) = channel();
        let rate = NonZeroU64::new(1 << 40).unwrap();
        let mut pace = Pace { rate, begun: Instant::now(), bytes: 0, stopped: &stopped };
        let passed = of_store(store, mended, &mut pace);
        (passed == ControlFlow::Continue(true), pace.bytes)
    }

    #[tokio::test]
    async fn a_missing_blob_is_found_and_the_active_model_that_is_whole_again_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mended) = (open(dir.path()), Notify::new());
        let model = prepare(&store, 1);
        store.activate(model, SELF).unwrap();
        let bytes: u64 = sent(1).all().map(|bytes| bytes.len() as u64).sum();
        assert_eq!(pass(&store, &mended), (true, bytes));
        let blob = dir.path().join("blobs/sha256").join(Digest::of(&sent(1).blobs[1]).hex());
        let aside = dir.path().join("aside");
        fs::rename(&blob, &aside).unwrap();
        assert_eq!(pass(&store, &mended), (false, bytes - 5000));
        let reason = store.damage_of(&model).unwrap();
        assert!(reason.starts_with("weights/a.bin") && reason.ends_with("the file is missing"), "{reason}");
        assert_eq!(pass(&store, &mended), (false, bytes - 5000), "nothing is verified while an alarm is on");
        assert!(timeout(Duration::ZERO, mended.notified()).await.is_err());
        fs::rename(&aside, &blob).unwrap();
        assert_eq!(pass(&store, &mended), (true, bytes), "each blob is hashed once, at the rate");
        assert_eq!(store.damage_of(&model), None);
        timeout(Duration::from_secs(1), mended.notified()).await.unwrap();
    }

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
