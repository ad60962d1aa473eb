//! Blobs on their way to devices: read in pieces, as fast as is allowed, and never more in memory than a bound.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recurve_bundle::{Bundle, Digest};
use recurve_proto::Bytes;
use recurve_proto::reason;
use recurve_proto::v1::PlanResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::rate::{Limiter, Rate};
use super::source::{Origin, Source};
use crate::client::models::{Blob, Operator, PULLED};
use crate::exit::Failure;
use crate::status::Trouble;
use crate::target::Target;

/// Most bytes in a message.
const PIECE: usize = 256 << 10;
/// Pieces of a transfer that were read and wait for the connection.
const AHEAD: usize = 4;
/// Most pieces in memory, of all transfers together.
const PIECES: usize = 96;
/// How long a device may take to write down a blob that came whole. Its connection gives signs of life meanwhile.
const WRITTEN: Duration = Duration::from_secs(15 * 60);

/// What all transfers of a deployment share.
#[derive(Debug)]
pub(crate) struct Transfers {
    limiter: Limiter,
    pieces: Arc<Semaphore>,
    /// How long a device may take no byte.
    patience: Duration,
}

/// A piece, which counts until it was copied into what the connection sends.
struct Piece {
    bytes: Vec<u8>,
    _counted: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Transfers {
    /// At most at this rate, all together.
    pub(crate) fn new(rate: Option<Rate>, patience: Duration) -> Self {
        Self { limiter: Limiter::new(rate), pieces: Arc::new(Semaphore::new(PIECES)), patience }
    }

    /// Has a device get what it lacks. `sent` is given the bytes as they leave.
    pub(crate) async fn deliver(
        &self,
        operator: &mut Operator,
        source: &Source,
        plan: &PlanResponse,
        sent: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Trouble> {
        match &source.origin {
            Origin::Folder(bundle) => match self.send_all(operator, bundle, plan, sent).await {
                Err(trouble) if trouble.reason == reason::WRONG_BLOB => Err(of_here(bundle, trouble).await),
                sent => sent,
            },
            Origin::Registry(_) if plan.missing.is_empty() => Ok(()),
            Origin::Registry(request) => {
                // What was there before is no progress.
                let mut told = None;
                let pulled = operator.pull(request.clone(), PULLED, |received, _| {
                    sent(received.saturating_sub(told.unwrap_or(received)));
                    told = Some(received);
                });
                pulled.await
            }
        }
    }

    async fn send_all(
        &self,
        operator: &mut Operator,
        bundle: &Bundle,
        plan: &PlanResponse,
        sent: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Trouble> {
        // A blob is written down while the next one is sent.
        let mut calls = Calls::new(operator.target());
        for missing in &plan.missing {
            let digest: Digest = missing
                .digest
                .parse()
                .map_err(|error| Failure::Failed(format!("{} asks for a blob: {error}", operator.target())))?;
            let blob = Blob {
                bundle: plan.bundle.clone(),
                digest: missing.digest.clone(),
                size: missing.size,
                offset: missing.received,
            };
            let (pieces, stream) = mpsc::channel(AHEAD);
            calls.begin(operator.clone(), blob, stream);
            let path = bundle.blob(&digest);
            tokio::select! {
                biased;
                failed = calls.failure() => return Err(failed),
                read = self.send(operator.target(), &path, missing.received, pieces, sent) => read?,
            }
            // The manifest says which others may come.
            calls.until(if missing.digest == plan.bundle { 0 } else { 1 }).await?;
        }
        calls.until(0).await
    }

    /// Sends a file's pieces, from this offset on, to a call.
    async fn send(
        &self,
        target: &Target,
        path: &Path,
        offset: u64,
        pieces: mpsc::Sender<Bytes>,
        sent: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Trouble> {
        let mut file = Some(begin(path, offset).await?);
        while let Some((piece, rest)) = self.read(path, file.take()).await? {
            let count = piece.len() as u64;
            match timeout(self.patience, pieces.send(piece)).await {
                Ok(Ok(())) => sent(count),
                // The call is over, and says why.
                Ok(Err(_)) => break,
                Err(_) => return Err(Trouble::lost(target, format!("it took no byte for {:?}", self.patience))),
            }
            file = Some(rest);
        }
        Ok(())
    }

    /// The next piece of a file, when it may leave; none at the file's end.
    async fn read(&self, path: &Path, file: Option<File>) -> Result<Option<(Bytes, File)>, Trouble> {
        let Some(mut file) = file else { return Ok(None) };
        let size = self.limiter.piece(PIECE);
        // Nobody closes it.
        let Ok(counted) = Arc::clone(&self.pieces).acquire_owned().await else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(size);
            std::io::Read::by_ref(&mut file).take(size as u64).read_to_end(&mut bytes).map(|_| (bytes, file))
        });
        let (bytes, file) = finished(path, read.await)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.limiter.take(bytes.len()).await;
        Ok(Some((Bytes::from_owner(Piece { bytes, _counted: counted }), file)))
    }
}

/// Uploads to one device that have begun. Dropped, it ends them.
struct Calls {
    target: Target,
    open: JoinSet<Result<(), Trouble>>,
}

impl Calls {
    fn new(target: &Target) -> Self {
        Self { target: target.clone(), open: JoinSet::new() }
    }

    fn begin(&mut self, mut operator: Operator, blob: Blob, pieces: mpsc::Receiver<Bytes>) {
        self.open.spawn(async move { operator.upload(blob, pieces).await });
    }

    /// The next answer; none where no call is open.
    async fn answer(&mut self) -> Option<Result<(), Trouble>> {
        let abandoned = || Err(Failure::Failed(format!("{}: an upload panicked", self.target)).into());
        Some(self.open.join_next().await?.unwrap_or_else(|_| abandoned()))
    }

    /// Waits until a call fails.
    async fn failure(&mut self) -> Trouble {
        loop {
            match self.answer().await {
                Some(Ok(())) => {}
                Some(Err(trouble)) => return trouble,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until no more than so many calls are open.
    async fn until(&mut self, most: usize) -> Result<(), Trouble> {
        while self.open.len() > most {
            match timeout(WRITTEN, self.answer()).await {
                Ok(answer) => answer.unwrap_or(Ok(()))?,
                Err(_) => return Err(Trouble::lost(&self.target, format!("it wrote nothing down for {WRITTEN:?}"))),
            }
        }
        Ok(())
    }
}

/// A device took other bytes for what they are: where the folder here is damaged, that is what is wrong.
async fn of_here(bundle: &Bundle, trouble: Trouble) -> Trouble {
    let (bundle, dir) = (bundle.clone(), bundle.dir().display().to_string());
    let verified = tokio::task::spawn_blocking(move || bundle.verify(&mut |_| {}).map(drop));
    match verified.await {
        Ok(Err(error)) => {
            let damaged = Failure::Damaged(format!("{dir}: {error}"));
            Trouble { reason: trouble.reason, ..Trouble::from(damaged) }
        }
        _ => trouble,
    }
}

async fn begin(path: &Path, offset: u64) -> Result<File, Trouble> {
    let opened: PathBuf = path.to_owned();
    let open = tokio::task::spawn_blocking(move || {
        let mut file = File::open(opened)?;
        file.seek(SeekFrom::Start(offset)).map(|_| file)
    });
    finished(path, open.await)
}

fn finished<T>(path: &Path, done: Result<std::io::Result<T>, tokio::task::JoinError>) -> Result<T, Trouble> {
    let cannot = |why: String| Trouble::from(Failure::Failed(format!("cannot read {}: {why}", path.display())));
    match done {
        Ok(result) => result.map_err(|error| cannot(error.to_string())),
        Err(_) => Err(cannot("reading panicked".to_owned())),
    }
}
