//! Where the model of a deployment comes from.

use std::ffi::OsStr;
use std::path::Path;

use recurve_author::trust::Files;
use recurve_bundle::{Bundle, Manifest, ModelInfo, file};
use recurve_proto::Bytes;
use recurve_proto::v1::PullRequest;
use recurve_registry::{Reference, Registry};

use crate::args::RegistryArgs;
use crate::client::trust::{newest, signatures_of};
use crate::exit::Failure;

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
    /// Its signatures, where it has some.
    pub(crate) signatures: Option<Files>,
    /// Where its blobs are.
    pub(crate) origin: Origin,
}

/// Where blobs are, and so how they reach a device.
#[derive(Debug)]
pub(crate) enum Origin {
    /// In a folder here: they are sent.
    Folder(Box<Bundle>),
    /// In a registry: the device fetches them.
    Registry(PullRequest),
}

impl Source {
    /// The bundle in a folder, or in a registry. `trust`: a folder with signatures that may be newer than its own; `lend`:
    /// devices ask the registry with the credentials of this user.
    pub(crate) async fn open(
        text: &OsStr,
        trust: Option<&Path>,
        registry: &RegistryArgs,
        lend: bool,
    ) -> Result<Self, Failure> {
        let Some(text) = text.to_str().filter(|text| Reference::is_meant(text)) else {
            return Self::folder(Path::new(text), trust);
        };
        let reference = text.parse().map_err(|error| Failure::Usage(format!("{text}: {error}")))?;
        Self::registry(&reference, trust, registry, lend).await
    }

    fn folder(dir: &Path, trust: Option<&Path>) -> Result<Self, Failure> {
        let bundle = Bundle::open(dir)?;
        let info = bundle.read(file::INFO)?.unwrap_or_default();
        Ok(Self {
            name: bundle.name().to_owned(),
            bundle: bundle.digest().to_string(),
            bytes: bundle.bytes(),
            manifest: bundle.manifest_bytes()?.into(),
            info: info.into(),
            signatures: signatures_of(&bundle, trust)?,
            origin: Origin::Folder(Box::new(bundle)),
        })
    }

    /// Only what is small comes here.
    async fn registry(
        reference: &Reference,
        trust: Option<&Path>,
        args: &RegistryArgs,
        lend: bool,
    ) -> Result<Self, Failure> {
        let Reference { repository, version } = reference;
        let registry = Registry::new(repository.clone(), args.access(repository)?)?;
        let description = registry.describe(version).await?;
        let manifest = Manifest::parse(&description.manifest)?;
        let lent = if lend { args.credentials(repository)? } else { None };
        let (username, password) = lent.map(|own| (own.username, own.password)).unwrap_or_default();
        let bundle = description.digest.to_string();
        Ok(Self {
            name: ModelInfo::parse(&description.info)?.name,
            bytes: manifest.size().saturating_add(description.manifest.len() as u64),
            manifest: description.manifest.into(),
            info: description.info.into(),
            signatures: newest(description.signatures, trust)?,
            origin: Origin::Registry(PullRequest {
                registry: repository.registry().to_owned(),
                repository: repository.name().to_owned(),
                bundle: bundle.clone(),
                username,
                password,
            }),
            bundle,
        })
    }
}
