//! Manifests that refer to a bundle, such as its signatures: through the referrers API where the registry has one, else
//! through the tag that the specification gives them ("referrers tag schema").

use recurve_bundle::{ARTIFACT_SIGNATURES, Descriptor, Digest, Index, MEDIA_INDEX, MEDIA_MANIFEST, Referrer};
use reqwest::StatusCode;
use reqwest::header::ACCEPT;

use crate::error::RegistryError;
use crate::link::{Registry, Right};
use crate::reference::Version;
use crate::retry::Retry;

/// Most bytes of a list of referrers, of a referrer, and of each of its files.
const DOCUMENT: u64 = 16 << 20;
/// Most referrers that are looked at.
const MOST: usize = 64;
/// The header by which a registry tells that it lists referrers itself.
const LISTED: &str = "oci-subject";

impl Registry {
    /// The signatures of a bundle in this registry: manifests that refer to it, in the order in which the registry lists
    /// them. None where it has none.
    ///
    /// # Errors
    /// The registry cannot be asked, or lists what is no list.
    pub async fn signatures(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let listed = match self.list(subject).await? {
            Some(index) => index,
            None => self.tagged(subject).await?,
        };
        let is_signature = |found: &Descriptor| {
            found.artifact_type.as_deref() == Some(ARTIFACT_SIGNATURES) && found.media_type == MEDIA_MANIFEST
        };
        Ok(listed.manifests.into_iter().filter(is_signature).take(MOST).collect())
    }

    /// A referrer's manifest and its bytes, as they are hashed.
    ///
    /// # Errors
    /// It is not there, or refers to something else.
    pub async fn referrer(
        &self,
        subject: &Digest,
        descriptor: &Descriptor,
    ) -> Result<(Referrer, Vec<u8>), RegistryError> {
        let (_, bytes) = self.manifest(&Version::Digest(descriptor.digest)).await?;
        let referrer =
            Referrer::parse(&bytes, subject).map_err(|source| self.not_a_bundle(&descriptor.digest, source))?;
        Ok((referrer, bytes))
    }

    /// A file of a referrer.
    ///
    /// # Errors
    /// It is not there, too large, or has other bytes.
    pub async fn referrer_file(&self, layer: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        self.small(layer, DOCUMENT).await
    }

    /// What the registry's own API lists; none where it has no such API.
    async fn list(&self, subject: &Digest) -> Result<Option<Index>, RegistryError> {
        let what = format!("referrers of {subject}");
        let url = self.url(&format!("referrers/{subject}")).await?;
        Retry::BRIEF
            .run(|| async {
                let get = || self.client().get(url.clone()).header(ACCEPT, MEDIA_INDEX);
                let response = self.send(Right::Pull, &what, &url, get).await?;
                let missing = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
                if missing.contains(&response.status()) {
                    return Ok(None);
                }
                let response = self.expect(&what, response, &[StatusCode::OK]).await?;
                let bytes = self.whole(&what, response, DOCUMENT).await?;
                self.index(&what, &bytes).map(Some)
            })
            .await
    }

    /// What the tag for referrers lists: nothing where there is no such tag.
    async fn tagged(&self, subject: &Digest) -> Result<Index, RegistryError> {
        let tag = tag(subject);
        match self.manifest(&Version::Tag(tag.clone())).await {
            Ok((_, bytes)) => self.index(&format!("manifest {tag}"), &bytes),
            Err(RegistryError::NotFound { .. }) => {
                Ok(Index { schema_version: 2, media_type: Some(MEDIA_INDEX.to_owned()), manifests: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    fn index(&self, what: &str, bytes: &[u8]) -> Result<Index, RegistryError> {
        let index = serde_json::from_slice::<Index>(bytes);
        index.map_err(|error| self.wrong(what, format!("they are no list of manifests: {error}")))
    }

    /// Puts a referrer beside its bundle. Its blobs are there.
    pub(crate) async fn attach(
        &self,
        descriptor: &Descriptor,
        referrer: &Referrer,
        bytes: Vec<u8>,
    ) -> Result<(), RegistryError> {
        // 1. The manifest, by digest.
        let digest = descriptor.digest;
        let size = bytes.len() as u64;
        let response = self.put_manifest(&Version::Digest(digest), bytes, MEDIA_MANIFEST, digest).await?;
        // 2. A registry with the API says that it has seen the subject, and that is all.
        if response.headers().contains_key(LISTED) {
            return Ok(());
        }
        // 3. Otherwise the client keeps the list, under a tag: the others stay, this one is the last.
        let subject = referrer.subject.digest;
        let mut index = self.tagged(&subject).await?;
        let new = Descriptor {
            media_type: MEDIA_MANIFEST.to_owned(),
            digest,
            size,
            artifact_type: Some(referrer.artifact_type.clone()),
            annotations: referrer.annotations.clone(),
        };
        if index.manifests.last() == Some(&new) {
            return Ok(());
        }
        index.manifests.retain(|listed| listed.digest != digest);
        index.manifests.push(new);
        let what = format!("referrers of {subject}");
        let bytes = serde_json::to_vec(&index).map_err(|error| self.wrong(&what, error.to_string()))?;
        let digest = Digest::of(&bytes);
        self.put_manifest(&Version::Tag(tag(&subject)), bytes, MEDIA_INDEX, digest).await.map(drop)
    }
}

/// The tag under which the referrers of a manifest are listed.
fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}
