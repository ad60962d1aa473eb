//! Blobs on their way from a registry: bounded by their declared size, gone on with where the link was lost.

use bytes::Bytes;
use recurve_bundle::{Descriptor, Digest};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::error::RegistryError;
use crate::link::{Registry, Right};

/// Pieces that came and are not taken.
const UNTAKEN: usize = 16;

/// A blob that streams. Its digest is for the receiver to check, who may have its beginning already.
#[derive(Debug)]
pub struct BlobStream<'a> {
    registry: &'a Registry,
    what: String,
    response: Response,
    /// Bytes to drop, where the registry began at the beginning.
    skip: u64,
    left: u64,
}

impl Registry {
    /// Begins to fetch a blob at `offset`. Where the registry serves no ranges, what comes before is fetched and dropped.
    ///
    /// # Errors
    /// It is not there, or the registry cannot be asked.
    pub async fn blob(&self, blob: &Descriptor, offset: u64) -> Result<BlobStream<'_>, RegistryError> {
        let what = format!("blob {}", blob.digest);
        let url = self.url(&format!("blobs/{}", blob.digest)).await?;
        let request = || {
            let request = self.client().get(url.clone());
            if offset > 0 { request.header(RANGE, format!("bytes={offset}-")) } else { request }
        };
        let response = self.send(Right::Pull, &what, &url, request).await?;
        let expected = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let response = self.expect(&what, response, &expected).await?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-"))) {
                    return Err(self.wrong(&what, format!("another range than from {offset} on")));
                }
                0
            }
            _ => offset,
        };
        Ok(BlobStream { registry: self, what, response, skip, left: blob.size.saturating_sub(offset) })
    }

    /// Fetches a blob from `offset` on into `out`, and goes on where the link was lost. Ends early, without an error, when
    /// nobody takes what comes.
    ///
    /// # Errors
    /// It is not there, it is longer or shorter than declared, or the link stays lost.
    pub async fn download(
        &self,
        blob: &Descriptor,
        offset: u64,
        out: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let (mut received, mut failures) = (offset, 0);
        loop {
            let before = received;
            match self.attempt(blob, &mut received, out).await {
                Err(error) if error.is_transient() => {
                    failures = if received > before { 1 } else { failures + 1 };
                    let Some(pause) = self.retry().pause(failures) else { return Err(error) };
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        &self,
        blob: &Descriptor,
        received: &mut u64,
        out: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        if *received == blob.size {
            return Ok(());
        }
        let mut stream = self.blob(blob, *received).await?;
        while let Some(bytes) = stream.next().await? {
            *received += bytes.len() as u64;
            if out.send(bytes).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fetches a small blob whole, and checks it.
    ///
    /// # Errors
    /// It is not there, larger than `limit`, or its bytes are not those of its digest.
    pub(crate) async fn small(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        if blob.size > limit {
            return Err(self.wrong(&format!("blob {}", blob.digest), format!("it has more than {limit} bytes")));
        }
        let (out, mut pieces) = mpsc::channel::<Bytes>(UNTAKEN);
        let taking = async {
            let mut all = Vec::new();
            while let Some(bytes) = pieces.recv().await {
                all.extend_from_slice(&bytes);
            }
            all
        };
        let fetching = async move { self.download(blob, 0, &out).await };
        let (fetched, all) = tokio::join!(fetching, taking);
        fetched?;
        let actual = Digest::of(&all);
        let wrong = || self.wrong(&format!("blob {}", blob.digest), format!("they hash to {actual}"));
        if actual == blob.digest { Ok(all) } else { Err(wrong()) }
    }
}

impl BlobStream<'_> {
    /// The next bytes; none at the blob's declared end.
    ///
    /// # Errors
    /// The link was lost, or the blob is longer or shorter than declared.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let Some(mut bytes) = self.registry.piece(&self.what, &mut self.response).await? else {
                let short = self.left > 0 || self.skip > 0;
                let problem = || self.registry.wrong(&self.what, format!("{} bytes are missing", self.left));
                return if short { Err(problem()) } else { Ok(None) };
            };
            let dropped = self.skip.min(bytes.len() as u64);
            self.skip -= dropped;
            let _ = bytes.split_to(usize::try_from(dropped).unwrap_or(bytes.len()));
            if bytes.len() as u64 > self.left {
                return Err(self.registry.wrong(&self.what, "there are more of them than declared".to_owned()));
            }
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}
