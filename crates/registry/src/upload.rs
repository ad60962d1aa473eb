//! A blob on its way to a registry: in one piece, or in chunks once the link broke; gone on with where the registry has it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use recurve_bundle::{BundleError, Descriptor, Digest, Hasher};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use crate::check::Held;
use crate::error::RegistryError;
use crate::link::{Registry, Right};
use crate::push::{Step, Tell};

/// Bytes read from the disk at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the network.
const UNSENT: usize = 8;
/// How long an upload may make no progress.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How many times longer when all bytes are sent and the registry hashes them.
const HASHING: u32 = 5;
/// Bytes of the largest chunk.
const LARGEST: u64 = 16 << 20;
/// Bytes of the smallest chunk, where the registry does not ask for larger ones.
const SMALLEST: u64 = 64 << 10;
/// The header with the size of the smallest chunk that the registry takes.
const CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// A blob, and the file that it lies in.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) blob: Descriptor,
    pub(crate) path: PathBuf,
    /// The registry has other bytes in its place.
    pub(crate) damaged: bool,
}

/// How blobs are sent: learnt from the uploads of this push that broke.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes of a chunk; none as long as no upload broke.
    chunk: Option<u64>,
    /// The registry takes no chunks.
    whole_only: bool,
}

/// An upload that the registry has begun.
#[derive(Debug, Clone)]
struct Begun {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// Bytes of the smallest chunk that the registry takes.
    least: u64,
}

/// The bytes of one blob that left this machine.
struct Sent {
    /// Where in the blob.
    position: Arc<AtomicU64>,
    tell: Tell,
}

impl Pace {
    /// An upload broke after this many bytes: each chunk, on a connection of its own, stays well below that.
    fn broke(&mut self, bytes: u64) {
        if bytes > 0 && !self.whole_only {
            let most = self.chunk.unwrap_or(LARGEST);
            self.chunk = Some((bytes / 4).clamp(SMALLEST.min(most), most));
        }
    }
}

impl Sent {
    fn at(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Sending goes on at this byte: what was sent beyond it is sent again.
    fn set(&self, offset: u64) {
        let before = self.position.swap(offset, Ordering::Relaxed);
        if before > offset {
            (self.tell)(Step::Again(before - offset));
        } else if before < offset {
            (self.tell)(Step::Sent(offset - before));
        }
    }
}

impl Registry {
    /// Sends a blob. Where the link breaks, asks the registry how much it has and goes on there; tries for as long as this
    /// makes progress, and a bounded number of times without.
    pub(crate) async fn upload(&self, source: &Source, pace: &mut Pace, tell: &Tell) -> Result<(), RegistryError> {
        let sent = Sent { position: Arc::default(), tell: Arc::clone(tell) };
        let (mut begun, mut furthest, mut failures) = (None, 0, 0);
        loop {
            let error = match self.try_upload(source, &mut begun, pace, &sent).await {
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(self.of_here(source, error).await),
                Ok(()) => return Ok(()),
            };
            let has = begun.as_ref().map_or(0, |begun: &Begun| begun.offset);
            failures = if has > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(has);
            let Some(pause) = self.retry().pause(failures) else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt: goes on with an upload that the registry still knows, or begins one.
    async fn try_upload(
        &self,
        source: &Source,
        begun: &mut Option<Begun>,
        pace: &mut Pace,
        sent: &Sent,
    ) -> Result<(), RegistryError> {
        if let Some(known) = begun.clone() {
            *begun = self.ask(source, known).await?;
            // The answer to its last request may be all that was lost.
            if begun.is_none() && !source.damaged && self.held(&source.blob).await? == Held::Whole {
                sent.set(source.blob.size);
                return Ok(());
            }
        }
        let now = match begun {
            Some(now) => now,
            None => begun.insert(self.begin(source).await?),
        };
        sent.set(now.offset);
        while let Some(chunk) = pace.chunk.filter(|_| now.offset < source.blob.size) {
            let end = now.offset.saturating_add(chunk.max(now.least)).min(source.blob.size);
            let response = self.put(source, Method::PATCH, now.url.clone(), now.offset..end, pace, sent).await?;
            match response.status() {
                StatusCode::ACCEPTED => self.go_on(source, now, response.headers(), end).await?,
                // Its state and ours differ, or it wants to know again who asks.
                StatusCode::UNAUTHORIZED => return Err(self.lost(source, "the registry asks for credentials again")),
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND if now.offset > 0 => {
                    return Err(self.lost(source, "the registry does not take the next chunk"));
                }
                refused if now.offset == 0 && is_no_chunks(refused) => {
                    *pace = Pace { chunk: None, whole_only: true };
                    *now = self.begin(source).await?;
                }
                _ => {
                    self.expect(&what(source), response, &[StatusCode::ACCEPTED]).await?;
                }
            }
            sent.set(now.offset);
        }
        let mut url = now.url.clone();
        url.query_pairs_mut().append_pair("digest", &source.blob.digest.to_string());
        let rest = now.offset..source.blob.size;
        let response = self.put(source, Method::PUT, url, rest, pace, sent).await?;
        self.expect(&what(source), response, &[StatusCode::CREATED]).await.map(drop)
    }

    /// Begins an upload.
    async fn begin(&self, source: &Source) -> Result<Begun, RegistryError> {
        let what = what(source);
        let url = self.url("blobs/uploads/").await?;
        let post = || self.client().post(url.clone()).header(CONTENT_LENGTH, 0);
        let response = self.send(Right::Push, &what, &url, post).await?;
        let response = self.expect(&what, response, &[StatusCode::ACCEPTED]).await?;
        let Some(url) = self.location(response.headers()).await? else {
            return Err(self.wrong(&what, "it tells no address to send it to".to_owned()));
        };
        let least = response.headers().get(CHUNK_MIN_LENGTH).and_then(|least| least.to_str().ok()?.parse().ok());
        Ok(Begun { url, offset: 0, least: least.unwrap_or(0) })
    }

    /// Asks how much of an upload the registry has; none where it knows no such upload any more.
    async fn ask(&self, source: &Source, known: Begun) -> Result<Option<Begun>, RegistryError> {
        let get = || self.client().get(known.url.clone());
        let response = self.send(Right::Push, &what(source), &known.url, get).await?;
        if response.status().is_client_error() {
            return Ok(None);
        }
        let response = self.expect(&what(source), response, &[StatusCode::NO_CONTENT]).await?;
        let has = received(response.headers()).filter(|has| *has <= source.blob.size);
        let url = self.location(response.headers()).await?;
        Ok(has.map(|offset| Begun { url: url.unwrap_or(known.url), offset, least: known.least }))
    }

    /// Takes over where the registry says that the next chunk goes.
    async fn go_on(
        &self,
        source: &Source,
        begun: &mut Begun,
        headers: &HeaderMap,
        end: u64,
    ) -> Result<(), RegistryError> {
        let has = received(headers).unwrap_or(end);
        if has <= begun.offset || has > end {
            return Err(self.wrong(&what(source), format!("it has {has} bytes where {end} were sent")));
        }
        begun.offset = has;
        if let Some(url) = self.location(headers).await? {
            begun.url = url;
        }
        Ok(())
    }

    async fn location(&self, headers: &HeaderMap) -> Result<Option<Url>, RegistryError> {
        match headers.get(LOCATION).and_then(|location| location.to_str().ok()) {
            Some(location) => self.given(location).await.map(Some),
            None => Ok(None),
        }
    }

    /// Sends these bytes of a blob; the answer, whatever it is.
    async fn put(
        &self,
        source: &Source,
        method: Method,
        url: Url,
        bytes: Range<u64>,
        pace: &mut Pace,
        sent: &Sent,
    ) -> Result<Response, RegistryError> {
        let mut file = File::open(&source.path).map_err(|error| unreadable(source, error))?;
        file.seek(SeekFrom::Start(bytes.start)).map_err(|error| unreadable(source, error))?;
        let length = bytes.end - bytes.start;
        let (pieces, body) = mpsc::channel(UNSENT);
        let reading = spawn_blocking({
            let (position, tell) = (Arc::clone(&sent.position), Arc::clone(&sent.tell));
            move || read(file, length, &pieces, &position, &tell)
        });
        let mut request = self.client().request(method.clone(), url.clone());
        if method == Method::PATCH {
            let last = bytes.end.saturating_sub(1);
            request = request.header(CONTENT_RANGE, format!("{}-{last}", bytes.start)).header(CONNECTION, "close");
        }
        request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, length);
        let request = self.signed(&url, request).body(Body::wrap_stream(ReceiverStream::new(body)));
        let answered = self.watched(&what(source), request.send(), &sent.position, bytes.end).await;
        // A file that cannot be read is the reason for what the registry then says.
        let read = reading.await.unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
        read.map_err(|error| unreadable(source, error))?;
        if let Err(RegistryError::Lost { .. }) = &answered {
            pace.broke(sent.at().saturating_sub(bytes.start));
        }
        answered
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

    /// The registry refused a blob: where the file here is damaged, that is why.
    async fn of_here(&self, source: &Source, error: RegistryError) -> RegistryError {
        let RegistryError::Answer { status: 400, .. } = &error else { return error };
        let path = source.path.clone();
        let actual = match spawn_blocking(move || hash(&path)).await {
            Ok(Ok(actual)) => actual,
            Ok(Err(error)) => return unreadable(source, error),
            Err(_) => return error,
        };
        if actual == source.blob.digest {
            return error;
        }
        let (what, declared) = (source.path.display().to_string(), source.blob.digest);
        BundleError::BlobDigest { what, declared, actual }.into()
    }

    fn lost(&self, source: &Source, cause: &str) -> RegistryError {
        RegistryError::Lost { repository: self.repository().clone(), what: what(source), cause: cause.to_owned() }
    }
}

fn what(source: &Source) -> String {
    format!("blob {}", source.blob.digest)
}

fn unreadable(source: &Source, error: io::Error) -> RegistryError {
    RegistryError::Read { path: source.path.clone(), source: error }
}

/// Whether a registry that takes blobs in one piece only may answer so to a chunk.
fn is_no_chunks(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status == StatusCode::NOT_IMPLEMENTED || (status.is_client_error() && !passing.contains(&status))
}

/// Bytes that the registry has, from `Range: 0-LAST`. Registries write `0-0` for none as well as for one.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

/// Reads a file into pieces until so many bytes are read, or nobody takes them.
fn read(
    file: File,
    bytes: u64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    position: &AtomicU64,
    tell: &Tell,
) -> io::Result<()> {
    let mut file = file.take(bytes);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let count = io::Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        if count == 0 || pieces.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
        position.fetch_add(count as u64, Ordering::Relaxed);
        tell(Step::Sent(count as u64));
    }
}

fn hash(path: &std::path::Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece) = (Hasher::default(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_stay_below_what_got_through() {
        let mut pace = Pace::default();
        let mut chunks = Vec::new();
        for broke in [0, 60 << 20, 200 << 20, 16 << 20, 4 << 20, 1 << 20, 1 << 10] {
            pace.broke(broke);
            chunks.push(pace.chunk);
        }
        let kib = |kib: u64| Some(kib << 10);
        assert_eq!(chunks, [None, kib(15 << 10), kib(15 << 10), kib(4 << 10), kib(1 << 10), kib(256), kib(64)]);
        let mut whole = Pace { chunk: None, whole_only: true };
        whole.broke(1 << 20);
        assert_eq!(whole.chunk, None);
    }

    #[test]
    fn a_range_says_how_much_is_there() {
        let headers = |range: &str| HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
        for (range, has) in
            [("0-0", Some(0)), ("0-999", Some(1000)), ("bytes=0-9", Some(10)), ("5-9", None), ("x", None)]
        {
            assert_eq!(received(&headers(range)), has, "{range}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
