//! Whether a registry has what its answers say: sizes are compared, and blobs are read back and hashed.

use std::sync::Arc;

use recurve_bundle::{Descriptor, Digest, Hasher};
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use tokio::sync::mpsc;

use crate::error::RegistryError;
use crate::link::{CONTENT_DIGEST, Registry, Right};
use crate::push::{Step, Tell};
use crate::retry::Retry;

/// Pieces that came and are not hashed.
const UNHASHED: usize = 16;

/// Which blobs a push reads back from the registry and hashes. The sizes of all are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// None.
    Nothing,
    /// Those that the registry has already.
    Present,
    /// Those, and those that were sent.
    All,
}

/// How a registry has a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Not at all.
    Missing,
    /// With another size or digest.
    Damaged,
    /// As far as it says, with the right size.
    Whole,
}

impl Registry {
    /// What the registry says about a blob.
    pub(crate) async fn held(&self, blob: &Descriptor) -> Result<Held, RegistryError> {
        Retry::BRIEF
            .run(|| async {
                let what = format!("blob {}", blob.digest);
                let url = self.url(&format!("blobs/{}", blob.digest)).await?;
                let response = self.send(Right::Push, &what, &url, || self.client().head(url.clone())).await?;
                let response = self.expect(&what, response, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
                if response.status() == StatusCode::NOT_FOUND {
                    return Ok(Held::Missing);
                }
                let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
                let size: Option<u64> = header(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
                let digest: Option<Digest> = header(CONTENT_DIGEST).and_then(|digest| digest.parse().ok());
                let other =
                    size.is_some_and(|size| size != blob.size) || digest.is_some_and(|said| said != blob.digest);
                Ok(if other { Held::Damaged } else { Held::Whole })
            })
            .await
    }

    /// Reads a blob back and hashes it; whether its bytes are the right ones.
    pub(crate) async fn is_whole(&self, blob: &Descriptor, tell: &Tell) -> Result<bool, RegistryError> {
        let (bytes, mut unhashed) = mpsc::channel::<bytes::Bytes>(UNHASHED);
        let hashing = tokio::task::spawn_blocking({
            let tell = Arc::clone(tell);
            move || {
                let mut hasher = Hasher::default();
                while let Some(bytes) = unhashed.blocking_recv() {
                    hasher.update(&bytes);
                    tell(Step::Checked(bytes.len() as u64));
                }
                hasher.finish()
            }
        });
        let fetched = self.download(blob, 0, &bytes).await;
        drop(bytes);
        let actual = hashing.await.ok();
        match fetched {
            Ok(()) => Ok(actual == Some(blob.digest)),
            Err(RegistryError::WrongBytes { .. } | RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
