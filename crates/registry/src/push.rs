//! A bundle goes to a registry: the blobs that it lacks or has damaged, the manifest as it is, what refers to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use recurve_bundle::{Bundle, Digest, MEDIA_MANIFEST};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};

use crate::check::{Held, ReadBack};
use crate::error::RegistryError;
use crate::link::{CONTENT_DIGEST, Registry, Right};
use crate::reference::Version;
use crate::retry::Retry;
use crate::upload::{Pace, Source};

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The bundle's digest.
    pub digest: Digest,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Bytes of the blobs that were sent.
    pub sent: u64,
    /// Blobs, the manifest not counted.
    pub blobs: usize,
    /// Blobs that were sent: the registry lacked them, or had them damaged.
    pub sent_blobs: usize,
    /// Blobs that the registry had damaged, and has whole now.
    pub replaced: usize,
    /// Bytes that were read back and hashed.
    pub checked: u64,
    /// Manifests that refer to the bundle, such as its signatures.
    pub referrers: usize,
}

/// How far a push is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This many bytes are to be read back and hashed.
    Check(u64),
    /// So many more are.
    Checked(u64),
    /// This many bytes are to be sent.
    Begin(u64),
    /// So many more left.
    Sent(u64),
    /// So many must be sent again, since the link was lost.
    Again(u64),
}

/// Is told how far it is.
pub(crate) type Tell = Arc<dyn Fn(Step) + Send + Sync>;

impl Registry {
    /// Pushes a bundle under `tag` and what refers to it. Blobs that the registry has are not sent, unless they are damaged;
    /// `read_back` says which are hashed to find that out. The manifest comes after its blobs, so that a push that broke off
    /// has left nothing that is not whole. `tell` is told how far it is.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses, keeps a damaged blob, or the bundle cannot be read.
    pub async fn push(
        &self,
        bundle: &Bundle,
        tag: &str,
        read_back: ReadBack,
        tell: impl Fn(Step) + Send + Sync + 'static,
    ) -> Result<Pushed, RegistryError> {
        let tell: Tell = Arc::new(tell);
        let mut referrers = Vec::new();
        for descriptor in bundle.referrers() {
            referrers.push((descriptor, bundle.referrer(descriptor)?));
        }
        let manifest = bundle.manifest();
        let beside =
            referrers.iter().flat_map(|(_, referrer)| std::iter::once(&referrer.config).chain(&referrer.layers));
        let mut seen = BTreeSet::new();
        let all: Vec<Source> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .chain(beside)
            .filter(|blob| seen.insert(blob.digest))
            .map(|blob| Source { blob: blob.clone(), path: bundle.blob(&blob.digest), damaged: false })
            .collect();
        let (blobs, bytes) = (all.len(), sum(&all));
        let (needed, mut checked) = self.needed(all, read_back, &tell).await?;
        tell(Step::Begin(sum(&needed)));
        let mut pace = Pace::default();
        for source in &needed {
            self.upload(source, &mut pace, &tell).await?;
        }
        checked += self.arrived(&needed, read_back, &tell).await?;
        let digest = *bundle.digest();
        self.put_manifest(&Version::Tag(tag.to_owned()), bundle.manifest_bytes()?, MEDIA_MANIFEST, digest).await?;
        for (descriptor, referrer) in &referrers {
            let bytes = bundle.referrer_file(descriptor)?;
            self.attach(descriptor, referrer, bytes).await?;
        }
        let replaced = needed.iter().filter(|source| source.damaged).count();
        let (sent, sent_blobs, referrers) = (sum(&needed), needed.len(), referrers.len());
        Ok(Pushed { digest, bytes, sent, blobs, sent_blobs, replaced, checked, referrers })
    }

    /// The blobs that must be sent: the registry lacks them, or has them damaged. Also the bytes that were read back.
    async fn needed(
        &self,
        all: Vec<Source>,
        read_back: ReadBack,
        tell: &Tell,
    ) -> Result<(Vec<Source>, u64), RegistryError> {
        let (mut needed, mut there) = (Vec::new(), Vec::new());
        for mut source in all {
            let held = self.held(&source.blob).await?;
            source.damaged = held == Held::Damaged;
            if held == Held::Whole { &mut there } else { &mut needed }.push(source);
        }
        if read_back == ReadBack::Nothing {
            return Ok((needed, 0));
        }
        let bytes = sum(&there);
        tell(Step::Check(bytes));
        for mut source in there {
            if !self.is_whole(&source.blob, tell).await? {
                source.damaged = true;
                needed.push(source);
            }
        }
        Ok((needed, bytes))
    }

    /// Looks whether what was sent is there: a registry may keep a damaged blob and drop the good one that was sent in its
    /// place. Gives the bytes that were read back.
    async fn arrived(&self, sent: &[Source], read_back: ReadBack, tell: &Tell) -> Result<u64, RegistryError> {
        let reads = |source: &&Source| match read_back {
            ReadBack::Nothing => false,
            ReadBack::Present => source.damaged,
            ReadBack::All => true,
        };
        let bytes = sent.iter().filter(reads).fold(0_u64, |sum, source| sum.saturating_add(source.blob.size));
        if bytes > 0 {
            tell(Step::Check(bytes));
        }
        let mut damaged = Vec::new();
        for source in sent {
            let said = self.held(&source.blob).await? == Held::Whole;
            if !said || (reads(&source) && !self.is_whole(&source.blob, tell).await?) {
                damaged.push(source.blob.digest);
            }
        }
        if damaged.is_empty() { Ok(bytes) } else { Err(self.kept(damaged)) }
    }

    /// The registry keeps damaged bytes under these digests.
    fn kept(&self, digests: Vec<Digest>) -> RegistryError {
        RegistryError::KeepsDamaged { repository: self.repository().clone(), digests }
    }

    /// Puts a manifest, byte for byte, and reads it back; the answer to it.
    pub(crate) async fn put_manifest(
        &self,
        version: &Version,
        bytes: Vec<u8>,
        media_type: &str,
        digest: Digest,
    ) -> Result<Response, RegistryError> {
        let what = format!("manifest {version}");
        let bytes = Bytes::from(bytes);
        let put = Retry::BRIEF
            .run(|| async {
                let url = self.url(&format!("manifests/{version}")).await?;
                let put = || self.client().put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.clone());
                let response = self.send(Right::Push, &what, &url, put).await?;
                let response = self.expect(&what, response, &[StatusCode::CREATED]).await?;
                let told = response.headers().get(CONTENT_DIGEST).and_then(|told| told.to_str().ok());
                match told.and_then(|told| told.parse::<Digest>().ok()) {
                    Some(told) if told != digest => Err(self.wrong(&what, format!("it keeps {told}, not {digest}"))),
                    _ => Ok(response),
                }
            })
            .await?;
        // As with blobs, a damaged one may be kept.
        match self.manifest(&Version::Digest(digest)).await {
            Ok(_) => Ok(put),
            Err(RegistryError::WrongBytes { .. } | RegistryError::NotFound { .. }) => Err(self.kept(vec![digest])),
            Err(error) => Err(error),
        }
    }
}

fn sum(sources: &[Source]) -> u64 {
    sources.iter().fold(0, |sum, source| sum.saturating_add(source.blob.size))
}
