//! What a bundle in a registry is, without its weights.

use recurve_bundle::{ANNOTATION_TITLE, BundleError, Digest, Manifest, file};

use crate::error::RegistryError;
use crate::link::Registry;
use crate::reference::Version;

/// Most bytes of `recurve.json`.
const INFO: u64 = 16 << 20;
/// By which a referrer tells when it was made.
const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";

/// A bundle in a registry, as far as it takes to decide about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its digest.
    pub digest: Digest,
    /// The manifest's bytes, as they are hashed.
    pub manifest: Vec<u8>,
    /// The bytes of `recurve.json`, as the manifest names them.
    pub info: Vec<u8>,
    /// Names and contents of the signatures' files, where there are signatures: the newest, where there are several.
    pub signatures: Option<Vec<(String, Vec<u8>)>>,
}

impl Registry {
    /// Fetches everything of a bundle that is small.
    ///
    /// # Errors
    /// It is not there or no bundle, the registry cannot be asked, or gives wrong bytes.
    pub async fn describe(&self, version: &Version) -> Result<Description, RegistryError> {
        let (digest, bytes) = self.manifest(version).await?;
        let refuse = |source| self.not_a_bundle(&digest, source);
        let manifest = Manifest::parse(&bytes).map_err(refuse)?;
        let info = manifest.layers.iter().find(|layer| layer.filepath() == Some(file::INFO));
        let info = info.ok_or(BundleError::LayerMissing { filepath: file::INFO }).map_err(refuse)?;
        let info = self.small(info, INFO).await?;
        let signatures = self.newest_signatures(&digest).await?;
        Ok(Description { digest, manifest: bytes, info, signatures })
    }

    async fn newest_signatures(&self, digest: &Digest) -> Result<Option<Vec<(String, Vec<u8>)>>, RegistryError> {
        let all = self.signatures(digest).await?;
        // RFC 3339 in one zone sorts as text; without it, the last one is the one that was pushed last.
        let Some(newest) = all.iter().max_by_key(|found| found.annotations.get(ANNOTATION_CREATED)) else {
            return Ok(None);
        };
        let (referrer, _) = self.referrer(digest, newest).await?;
        let mut files = Vec::new();
        for layer in &referrer.layers {
            let name = layer.annotations.get(ANNOTATION_TITLE).cloned().unwrap_or_else(|| layer.digest.to_string());
            files.push((name, self.referrer_file(layer).await?));
        }
        Ok(Some(files))
    }

    pub(crate) fn not_a_bundle(&self, digest: &Digest, source: BundleError) -> RegistryError {
        let (repository, what) = (self.repository().clone(), format!("manifest {digest}"));
        RegistryError::NotABundle { repository, what, source: Box::new(source) }
    }
}
