//! Where the model of a deployment comes from.

use std::path::Path;

use recurve_bundle::{Bundle, BundleError, file};
use recurve_proto::Bytes;

use crate::exit::Failure;

/// How a reference to a registry begins.
const REGISTRY: &str = "oci://";

/// The model to deploy.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name.
    pub(crate) name: String,
    /// Its digest.
    pub(crate) bundle: String,
    /// Of all its blobs.
    pub(crate) bytes: u64,
    /// Its manifest.
    pub(crate) manifest: Bytes,
    /// Its `recurve.json`.
    pub(crate) info: Bytes,
    /// Where its blobs are.
    pub(crate) origin: Origin,
}

/// Where blobs are, and so how they reach a device.
#[derive(Debug)]
pub(crate) enum Origin {
    /// In a folder here: they are sent.
    Folder(Bundle),
}

impl Source {
    /// The bundle in a folder, or in a registry.
    pub(crate) fn open(text: &str) -> Result<Self, Failure> {
        match text.strip_prefix(REGISTRY) {
            Some(reference) => Self::registry(reference),
            None => Self::folder(Path::new(text)),
        }
    }

    fn folder(dir: &Path) -> Result<Self, Failure> {
        let bundle = Bundle::open(dir).map_err(damaged)?;
        let info = bundle.read(file::INFO).map_err(damaged)?.unwrap_or_default();
        Ok(Self {
            name: bundle.name().to_owned(),
            bundle: bundle.digest().to_string(),
            bytes: bundle.bytes(),
            manifest: bundle.manifest_bytes().map_err(damaged)?.into(),
            info: info.into(),
            origin: Origin::Folder(bundle),
        })
    }

    fn registry(reference: &str) -> Result<Self, Failure> {
        Err(Failure::Usage(format!(
            "{REGISTRY}{reference}: this version deploys folders only; fetch the bundle first, for instance with `skopeo copy`"
        )))
    }
}

fn damaged(error: BundleError) -> Failure {
    match error {
        BundleError::Missing { .. } | BundleError::Io { .. } => Failure::Failed(error.to_string()),
        _ => Failure::Damaged(error.to_string()),
    }
}
