//! Models that the device fetches itself, from an OCI registry: in their turn, blob by blob, gone on with where a link was
//! lost or the daemon ended.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recurve_bundle::{Descriptor, Digest, Manifest};
use recurve_registry::{Access, AuthFile, Credentials, Registry, RegistryError, Repository, Retry, Version};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{Missing, Store, StoreError, blobs};
use crate::config::RegistrySettings;

/// Pulls that run or wait.
const MOST: usize = 8;
/// Pieces that came and are not written.
const UNWRITTEN: usize = 16;
/// How many bytes come between two messages about them.
const STEP: u64 = 64 << 10;

/// An order to fetch a model.
#[derive(Debug, Clone)]
pub struct PullOrder {
    /// Where it is.
    pub repository: Repository,
    /// Which it is.
    pub bundle: Digest,
    /// Who to be at the registry; else the settings tell.
    pub credentials: Option<Credentials>,
    /// Who gave the order.
    pub who: String,
}

/// How far a pull is.
#[derive(Debug, Clone, Default)]
pub struct Pulling {
    /// Bytes that are here,
    pub received: u64,
    /// of all that are needed; 0 until it is known.
    pub bytes: u64,
    /// How it ended, when it did.
    pub ended: Option<Result<(), Arc<PullError>>>,
}

/// Why a model was not fetched. What came of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry cannot be reached, or refuses, or gives wrong bytes.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many run or wait.
    #[error("{MOST} pulls run or wait already, and no more may: ask again when one has ended")]
    Full,
}

/// The pulls of a store.
#[derive(Debug)]
pub struct Pulls {
    store: Arc<Store>,
    settings: RegistrySettings,
    open: Mutex<HashMap<Digest, watch::Receiver<Pulling>>>,
    /// One at a time: models share blobs, and a link is not faster for two.
    turn: tokio::sync::Mutex<()>,
}

impl Pulls {
    /// None yet.
    pub fn new(store: Arc<Store>, settings: RegistrySettings) -> Arc<Self> {
        Arc::new(Self { store, settings, open: Mutex::default(), turn: tokio::sync::Mutex::new(()) })
    }

    /// Begins to fetch a model, whoever then listens; or follows the pull of it that is under way.
    ///
    /// # Errors
    /// Too many run or wait.
    pub fn begin(self: &Arc<Self>, order: PullOrder) -> Result<watch::Receiver<Pulling>, PullError> {
        let mut open = self.open();
        // One that ended without a word has no sender any more.
        open.retain(|_, pulling| pulling.has_changed().is_ok());
        if let Some(pulling) = open.get(&order.bundle) {
            let mut pulling = pulling.clone();
            pulling.mark_changed();
            return Ok(pulling);
        }
        if open.len() >= MOST {
            return Err(PullError::Full);
        }
        let (tell, pulling) = watch::channel(Pulling::default());
        open.insert(order.bundle, pulling.clone());
        tokio::spawn(Arc::clone(self).carry_out(order, tell));
        Ok(pulling)
    }

    async fn carry_out(self: Arc<Self>, order: PullOrder, tell: watch::Sender<Pulling>) {
        let tell = Arc::new(tell);
        let result = {
            let _turn = self.turn.lock().await;
            self.fetch(&order, &tell).await
        };
        let (bundle, from, by) = (order.bundle, order.repository.to_string(), order.who.clone());
        let outcome = match &result {
            Ok(()) => {
                info!(%bundle, from, by, "model pulled");
                format!("done, from {from}")
            }
            Err(error) => {
                warn!(%bundle, from, by, %error, "the model was not pulled");
                error.to_string()
            }
        };
        if let Err(error) = self.on_disk(move |store| store.note("pull", Some(bundle), &by, &outcome)).await {
            warn!(%bundle, %error, "the pull is not in the audit");
        }
        self.open().remove(&bundle);
        tell.send_modify(|pulling| pulling.ended = Some(result.map_err(Arc::new)));
    }

    async fn fetch(&self, order: &PullOrder, tell: &Arc<watch::Sender<Pulling>>) -> Result<(), PullError> {
        let registry = self.registry(order).await?;
        let (_, manifest) = registry.manifest(&Version::Digest(order.bundle)).await?;
        let size = needed(&manifest).map_err(|source| RegistryError::NotABundle {
            repository: order.repository.clone(),
            what: format!("manifest {}", order.bundle),
            source: Box::new(source),
        })?;
        let plan = self.on_disk({
            let manifest = manifest.clone();
            move |store| store.plan(&manifest)
        });
        let plan = plan.await?;
        if plan.bytes > plan.free {
            let (path, needed, free) = (self.store.dir.clone(), plan.bytes, plan.free);
            return Err(StoreError::NoRoom { path, needed, free }.into());
        }
        tell.send_modify(|pulling| (pulling.received, pulling.bytes) = (size.saturating_sub(plan.bytes), size));
        for missing in plan.missing {
            if missing.digest == order.bundle {
                self.take_manifest(order, manifest.clone()).await?;
            } else {
                self.take_blob(&registry, order, missing, tell).await?;
            }
        }
        tell.send_modify(|pulling| pulling.received = size);
        Ok(())
    }

    /// The way to the registry, as the order and the settings tell.
    async fn registry(&self, order: &PullOrder) -> Result<Registry, PullError> {
        let (settings, order) = (self.settings.clone(), order.clone());
        self.on_disk(move |_| {
            let repository = order.repository;
            let credentials = match (order.credentials, &settings.auth_file) {
                (None, Some(path)) => AuthFile::read(path)?.find(&repository).cloned(),
                (own, _) => own,
            };
            let name = repository.registry();
            let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
            let plain_http = settings.plain_http.iter().any(|plain| plain == name || plain == host);
            let authority = settings.ca.as_deref().map(|path| authority(path, name)).transpose()?;
            let access = Access { credentials, plain_http, authority, retry: Retry::STUBBORN };
            Ok::<_, PullError>(Registry::new(repository, access)?)
        })
        .await
    }

    async fn take_manifest(&self, order: &PullOrder, manifest: Vec<u8>) -> Result<(), PullError> {
        let (bundle, who) = (order.bundle, order.who.clone());
        self.on_disk(move |store| {
            let mut incoming = store.receive(bundle, bundle, manifest.len() as u64, 0)?;
            incoming.write(manifest.into())?;
            incoming.finish(&who).map(drop)
        })
        .await?;
        Ok(())
    }

    /// Takes a blob: the network fills a short queue, the disk empties it.
    async fn take_blob(
        &self,
        registry: &Registry,
        order: &PullOrder,
        missing: Missing,
        tell: &Arc<watch::Sender<Pulling>>,
    ) -> Result<(), PullError> {
        let Missing { digest, size, received } = missing;
        let (bundle, who, tell) = (order.bundle, order.who.clone(), Arc::clone(tell));
        let mut incoming = self.on_disk(move |store| store.receive(bundle, digest, size, received)).await?;
        let (bytes, mut unwritten) = mpsc::channel::<bytes::Bytes>(UNWRITTEN);
        let writing = self.on_disk(move |_| {
            let mut untold = 0;
            while let Some(bytes) = unwritten.blocking_recv() {
                untold += bytes.len() as u64;
                incoming.write(bytes)?;
                if untold >= STEP {
                    tell.send_modify(|pulling| pulling.received += std::mem::take(&mut untold));
                }
            }
            tell.send_modify(|pulling| pulling.received += untold);
            incoming.finish(&who).map(drop)
        });
        let blob = Descriptor {
            media_type: String::new(),
            digest,
            size,
            artifact_type: None,
            annotations: Default::default(),
        };
        let fetching = async move { registry.download(&blob, received, &bytes).await };
        let (fetched, written) = tokio::join!(fetching, writing);
        // What the network did not bring, the disk does not have.
        fetched?;
        written.map_err(|error| match error {
            StoreError::WrongBytes { declared, actual } => PullError::Registry(RegistryError::WrongBytes {
                repository: order.repository.clone(),
                what: format!("blob {declared}"),
                problem: format!("they hash to {actual}"),
            }),
            error => error.into(),
        })
    }

    /// Does what waits for the disk.
    async fn on_disk<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = Arc::clone(&self.store);
        let path = store.dir.clone();
        spawn_blocking(move || work(&store)).await.unwrap_or_else(|_| {
            let source = std::io::Error::other("the thread for it panicked");
            Err(StoreError::Io { action: "write", path, source }.into())
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Pulling>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a model's manifest and its blobs, each once.
fn needed(manifest: &[u8]) -> Result<u64, recurve_bundle::BundleError> {
    let parsed = Manifest::parse(manifest)?;
    let mut seen = BTreeSet::new();
    let each = blobs(&parsed).filter(|blob| seen.insert(blob.digest));
    Ok(each.fold(manifest.len() as u64, |sum, blob| sum.saturating_add(blob.size)))
}

/// The certificates of the authorities.
fn authority(path: &Path, registry: &str) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|error| RegistryError::Setup {
        registry: registry.to_owned(),
        problem: format!("registry.ca: {} cannot be read: {error}", path.display()),
    })
}
