//! A bundle goes to a registry: the blobs that it lacks, the manifest as it is, what refers to it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use recurve_bundle::{Bundle, Descriptor, Digest, MEDIA_MANIFEST};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::RegistryError;
use crate::link::{Registry, Right};
use crate::reference::Version;
use crate::retry::Retry;

/// Bytes that are read from the disk at once,
const PIECE: usize = 256 << 10;
/// and how many such pieces wait for the network.
const UNSENT: usize = 8;
/// How long an upload may stand still,
const STANDSTILL: Duration = Duration::from_secs(60);
/// and how many times that when all of it was sent and the registry hashes.
const HASHING: u32 = 5;

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The bundle's digest.
    pub digest: Digest,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Bytes of those that the registry lacked.
    pub sent: u64,
    /// Blobs, the manifest not counted.
    pub blobs: usize,
    /// Those that the registry lacked.
    pub sent_blobs: usize,
    /// Manifests that refer to the bundle, such as its signatures.
    pub referrers: usize,
}

/// How far a push is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This many bytes are to be sent.
    Begin(u64),
    /// So many more left.
    Sent(u64),
    /// So many must be sent again, since the link was lost.
    Again(u64),
}

/// A blob, and the file that it lies in.
struct Source {
    blob: Descriptor,
    path: PathBuf,
}

/// Is told how far it is.
pub(crate) type Tell = Arc<dyn Fn(Step) + Send + Sync>;

impl Registry {
    /// Pushes a bundle under `tag` and what refers to it. Blobs that are there are not sent; the manifest comes after its
    /// blobs, so that a push that broke off has left nothing that is not whole. `tell` is told how far it is.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses, or the bundle cannot be read.
    pub async fn push(
        &self,
        bundle: &Bundle,
        tag: &str,
        tell: impl Fn(Step) + Send + Sync + 'static,
    ) -> Result<Pushed, RegistryError> {
        let tell: Tell = Arc::new(tell);
        let manifest = bundle.manifest();
        let mut referrers = Vec::new();
        for descriptor in bundle.referrers() {
            referrers.push((descriptor, bundle.referrer(descriptor)?));
        }
        let beside =
            referrers.iter().flat_map(|(_, referrer)| std::iter::once(&referrer.config).chain(&referrer.layers));
        let mut seen = BTreeSet::new();
        let all: Vec<Source> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .chain(beside)
            .filter(|blob| seen.insert(blob.digest))
            .map(|blob| Source { blob: blob.clone(), path: bundle.blob(&blob.digest) })
            .collect();
        let mut missing = Vec::new();
        for source in &all {
            if !self.has(&source.blob.digest).await? {
                missing.push(source);
            }
        }
        let sum = |blobs: &mut dyn Iterator<Item = &Source>| {
            blobs.fold(0_u64, |sum, source| sum.saturating_add(source.blob.size))
        };
        let (bytes, sent) = (sum(&mut all.iter()), sum(&mut missing.iter().copied()));
        tell(Step::Begin(sent));
        for source in &missing {
            self.retry().run(|| self.upload(source, &tell)).await?;
        }
        let digest = *bundle.digest();
        self.put_manifest(&Version::Tag(tag.to_owned()), bundle.manifest_bytes()?, MEDIA_MANIFEST, digest).await?;
        for (descriptor, referrer) in &referrers {
            let bytes = bundle.referrer_file(descriptor)?;
            self.attach(descriptor, referrer, bytes).await?;
        }
        let (blobs, sent_blobs, referrers) = (all.len(), missing.len(), referrers.len());
        Ok(Pushed { digest, bytes, sent, blobs, sent_blobs, referrers })
    }

    /// Whether the registry has a blob.
    async fn has(&self, digest: &Digest) -> Result<bool, RegistryError> {
        Retry::BRIEF
            .run(|| async {
                let what = format!("blob {digest}");
                let url = self.url(&format!("blobs/{digest}")).await?;
                let response = self.send(Right::Push, &what, &url, || self.client().head(url.clone())).await?;
                let response = self.expect(&what, response, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
                Ok(response.status() == StatusCode::OK)
            })
            .await
    }

    /// Sends a blob: an upload is begun with POST and completed with one PUT, as the specification's "POST then PUT".
    async fn upload(&self, source: &Source, tell: &Tell) -> Result<(), RegistryError> {
        let what = format!("blob {}", source.blob.digest);
        let url = self.url("blobs/uploads/").await?;
        let begun = self.send(Right::Push, &what, &url, || self.client().post(url.clone()).header(CONTENT_LENGTH, 0));
        let begun = self.expect(&what, begun.await?, &[StatusCode::ACCEPTED]).await?;
        let location = begun.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let mut url = match location {
            Some(location) => self.given(location).await?,
            None => return Err(self.wrong(&what, "it tells no address to send it to".to_owned())),
        };
        url.query_pairs_mut().append_pair("digest", &source.blob.digest.to_string());

        let file = File::open(&source.path).map_err(|error| read_error(source, error))?;
        let sent = Arc::new(AtomicU64::new(0));
        let (pieces, body) = mpsc::channel(UNSENT);
        let reading = spawn_blocking({
            let (sent, tell, size) = (Arc::clone(&sent), Arc::clone(tell), source.blob.size);
            move || read(file, size, &pieces, &sent, &tell)
        });
        let request = self.client().put(url.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let request = request.header(CONTENT_LENGTH, source.blob.size);
        let request = self.signed(&url, request).body(Body::wrap_stream(ReceiverStream::new(body)));
        let answered = self.watched(&what, request.send(), &sent, source.blob.size).await;
        let result = match answered {
            Ok(response) => self.expect(&what, response, &[StatusCode::CREATED]).await.map(drop),
            Err(error) => Err(error),
        };
        // A file that cannot be read is the reason for what the registry then says.
        let read = reading.await.unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
        let result = read.map_err(|error| read_error(source, error)).and(result);
        if result.is_err() {
            tell(Step::Again(sent.load(Ordering::Relaxed)));
        }
        result
    }

    /// The answer to an upload, if it does not stand still.
    async fn watched(
        &self,
        what: &str,
        sending: impl Future<Output = Result<Response, reqwest::Error>>,
        sent: &AtomicU64,
        size: u64,
    ) -> Result<Response, RegistryError> {
        let mut sending = std::pin::pin!(sending);
        let (mut before, mut still) = (0, 0);
        loop {
            tokio::select! {
                answer = &mut sending => return answer.map_err(|error| self.failed(what, error)),
                () = tokio::time::sleep(STANDSTILL) => {
                    let now = sent.load(Ordering::Relaxed);
                    still = if now > before { 0 } else { still + 1 };
                    before = now;
                    if still >= (if now == size { HASHING } else { 1 }) {
                        return Err(self.silent(what));
                    }
                }
            }
        }
    }

    /// Puts a manifest, byte for byte; the answer to it.
    pub(crate) async fn put_manifest(
        &self,
        version: &Version,
        bytes: Vec<u8>,
        media_type: &str,
        digest: Digest,
    ) -> Result<Response, RegistryError> {
        let what = format!("manifest {version}");
        let bytes = Bytes::from(bytes);
        Retry::BRIEF
            .run(|| async {
                let url = self.url(&format!("manifests/{version}")).await?;
                let put = || self.client().put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.clone());
                let response = self.send(Right::Push, &what, &url, put).await?;
                let response = self.expect(&what, response, &[StatusCode::CREATED]).await?;
                let told = response.headers().get("docker-content-digest").and_then(|told| told.to_str().ok());
                match told.and_then(|told| told.parse::<Digest>().ok()) {
                    Some(told) if told != digest => Err(self.wrong(&what, format!("it keeps {told}, not {digest}"))),
                    _ => Ok(response),
                }
            })
            .await
    }
}

fn read_error(source: &Source, error: io::Error) -> RegistryError {
    RegistryError::Read { path: source.path.clone(), source: error }
}

/// Reads a file into pieces until all is read, or nobody takes them.
fn read(
    file: File,
    size: u64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    sent: &AtomicU64,
    tell: &Tell,
) -> io::Result<()> {
    let mut file = file.take(size);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let count = io::Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        if count == 0 || pieces.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
        sent.fetch_add(count as u64, Ordering::Relaxed);
        tell(Step::Sent(count as u64));
    }
}
