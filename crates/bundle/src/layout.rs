//! An opened bundle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::blob::{self, limit};
use crate::digest::Digest;
use crate::error::BundleError;
use crate::filepath::check_filepath;
use crate::generation::GenerationDefaults;
use crate::golden::Golden;
use crate::info::ModelInfo;
use crate::json;
use crate::manifest::{
    ANNOTATION_FILEPATH, ANNOTATION_TITLE, ARTIFACT_TYPE, Descriptor, Index, LAYOUT_VERSION, LayoutMarker,
    MEDIA_CONFIG, MEDIA_DOC, MEDIA_MANIFEST, MEDIA_WEIGHT, MEDIA_WEIGHT_CONFIG, Manifest, ModelPack, Referrer,
};

/// The filepaths of a bundle's layers. Weight shards are `weights/<name>.bin`.
pub mod file {
    /// What the daemon must know before it loads the graph.
    pub const INFO: &str = "recurve.json";
    /// The ONNX graph; its external data are the shards' blobs beside it.
    pub const GRAPH: &str = "graph.onnx";
    /// The tokenizer, as Hugging Face writes it. Absent from a bundle that serves token ids only.
    pub const TOKENIZER: &str = "tokenizer.json";
    /// The chat template, if the checkpoint has one.
    pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
    /// How the model wants to be sampled.
    pub const GENERATION: &str = "generation.json";
    /// The golden test.
    pub const GOLDEN: &str = "golden.safetensors";
    /// The model card.
    pub const CARD: &str = "README.md";
    /// The error of every quantized tensor.
    pub const QUANTIZATION: &str = "quantization.json";
    /// The directory of the weight shards.
    pub const WEIGHTS: &str = "weights";
}

const BLOBS: &str = "blobs/sha256";
/// What errors call a manifest that refers to the model's.
const REFERRER: &str = "referrer";

/// A bundle whose small documents were read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    digest: Digest,
    manifest_size: u64,
    manifest: Manifest,
    info: ModelInfo,
    graph: PathBuf,
    referrers: Vec<Descriptor>,
}

/// What [`Bundle::verify`] hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Number of blobs, the manifest and the configuration among them.
    pub blobs: usize,
    /// Their bytes together.
    pub bytes: u64,
}

impl Bundle {
    /// Opens a bundle's directory: reads and checks `oci-layout`, `index.json`, the manifest, the configuration and
    /// `recurve.json`, and that every blob is there with the declared size. Weights are not read: see
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// Names the file, the field, the value and what is allowed, or the blob that is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        // 1. The directory says that it is an OCI image layout of the version that is read here.
        read_marker(dir)?;
        // 2. The index names exactly one model, and perhaps what refers to it.
        let (root, referrers) = read_index(dir)?;
        Ok(Self { referrers, ..Self::from_root(dir, root)? })
    }

    /// Opens one of several bundles whose blobs lie together in `dir/blobs/sha256`, as a device keeps them: there is no
    /// marker and no index. `size`: bytes of the manifest.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_blobs(dir: &Path, manifest: Digest, size: u64) -> Result<Self, BundleError> {
        let media_type = MEDIA_MANIFEST.to_owned();
        let annotations = Default::default();
        Self::from_root(dir, Descriptor { media_type, digest: manifest, size, artifact_type: None, annotations })
    }

    fn from_root(dir: &Path, root: Descriptor) -> Result<Self, BundleError> {
        // 3. The manifest is what the index names, and is a model's.
        let what = "manifest";
        let bytes = blob::read(&blob_path(dir, &root.digest), what, &root, limit::MANIFEST)?;
        let manifest = Manifest::parse(&bytes)?;
        // 4. The configuration is what the manifest names, and agrees with it.
        let config = &manifest.config;
        let bytes = blob::read(&blob_path(dir, &config.digest), "config", config, limit::DOCUMENT)?;
        check_config(&json::parse("config", &bytes)?, &manifest)?;
        // 5. Every blob is there with its declared size.
        for layer in &manifest.layers {
            let what = layer.filepath().unwrap_or_default();
            blob::check(&blob_path(dir, &layer.digest), what, layer)?;
        }
        // 6. What the daemon needs is there and can be read by this version.
        let layer = find(&manifest, file::INFO).ok_or(BundleError::LayerMissing { filepath: file::INFO })?;
        let bytes = blob::read(&blob_path(dir, &layer.digest), file::INFO, layer, limit::DOCUMENT)?;
        let info = ModelInfo::parse(&bytes)?;
        let graph = find(&manifest, file::GRAPH).ok_or(BundleError::LayerMissing { filepath: file::GRAPH })?;
        let graph = blob_path(dir, &graph.digest);
        let (digest, manifest_size, referrers) = (root.digest, root.size, Vec::new());
        Ok(Self { dir: dir.to_owned(), digest, manifest_size, manifest, info, graph, referrers })
    }

    /// The bundle's directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest's digest, which stands for the whole bundle.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What `index.json` says of the model's manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: MEDIA_MANIFEST.to_owned(),
            digest: self.digest,
            size: self.manifest_size,
            artifact_type: None,
            annotations: Default::default(),
        }
    }

    /// The manifests beside the model's in `index.json`: they refer to it. Their blobs were not looked at.
    pub fn referrers(&self) -> &[Descriptor] {
        &self.referrers
    }

    /// Reads a manifest that refers to this bundle's model.
    ///
    /// # Errors
    /// It is missing or damaged, is no such manifest, or refers to another model.
    pub fn referrer(&self, descriptor: &Descriptor) -> Result<Referrer, BundleError> {
        let bytes = blob::read(&self.blob(&descriptor.digest), REFERRER, descriptor, limit::DOCUMENT)?;
        Referrer::parse(&bytes, &self.digest)
    }

    /// Reads a file of a referrer, of at most 16 MiB.
    ///
    /// # Errors
    /// It is missing, damaged or larger.
    pub fn referrer_file(&self, layer: &Descriptor) -> Result<Vec<u8>, BundleError> {
        let name = layer.annotations.get(ANNOTATION_TITLE).map_or(REFERRER, String::as_str);
        blob::read(&self.blob(&layer.digest), name, layer, limit::DOCUMENT)
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// What the bundle consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the daemon needs to know of the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The graph's file. Its weights lie beside it, under their digests.
    pub fn graph_path(&self) -> PathBuf {
        self.graph.clone()
    }

    /// The layer with this filepath.
    pub fn file(&self, filepath: &str) -> Option<&Descriptor> {
        find(&self.manifest, filepath)
    }

    /// The manifest's bytes, as they are hashed.
    ///
    /// # Errors
    /// They are not those that were opened.
    pub fn manifest_bytes(&self) -> Result<Vec<u8>, BundleError> {
        blob::read(&self.blob(&self.digest), "manifest", &self.descriptor(), limit::MANIFEST)
    }

    /// The file of a blob, whether or not it is there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.dir, digest)
    }

    /// Reads the layer with this filepath into memory; `None` when the bundle has no such layer. For every layer but
    /// weight shards, which are larger than what is allowed here.
    ///
    /// # Errors
    /// When it is larger than allowed for this filepath, or its bytes are not those that its digest names.
    pub fn read(&self, filepath: &str) -> Result<Option<Vec<u8>>, BundleError> {
        let Some(layer) = self.file(filepath) else {
            return Ok(None);
        };
        let limit = match filepath {
            file::TOKENIZER => limit::TOKENIZER,
            file::GRAPH => limit::GRAPH,
            file::GOLDEN => limit::GOLDEN,
            _ => limit::DOCUMENT,
        };
        blob::read(&blob_path(&self.dir, &layer.digest), filepath, layer, limit).map(Some)
    }

    /// The golden test.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another vocabulary than the model's.
    pub fn golden(&self) -> Result<Golden, BundleError> {
        let missing = BundleError::LayerMissing { filepath: file::GOLDEN };
        let golden = Golden::parse(&self.read(file::GOLDEN)?.ok_or(missing)?)?;
        if golden.vocab_size == self.info.vocab_size as usize {
            return Ok(golden);
        }
        let (found, expected) = (golden.vocab_size, self.info.vocab_size);
        Err(BundleError::Golden { problem: format!("it has logits of {found} tokens, but the model has {expected}") })
    }

    /// How the model wants to be sampled; nothing chosen when the bundle does not say.
    ///
    /// # Errors
    /// When the file is damaged or holds a value that is not allowed.
    pub fn generation(&self) -> Result<GenerationDefaults, BundleError> {
        match self.read(file::GENERATION)? {
            Some(bytes) => GenerationDefaults::parse(&bytes),
            None => Ok(GenerationDefaults::new()),
        }
    }

    /// The files of the weights, each once, and their bytes.
    pub fn shards(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        let mut seen = BTreeSet::new();
        let weights = self
            .manifest
            .layers
            .iter()
            .filter(|layer| layer.filepath().is_some_and(|path| Path::new(path).starts_with(file::WEIGHTS)));
        weights
            .filter(move |layer| seen.insert(layer.digest))
            .map(|layer| (blob_path(&self.dir, &layer.digest), layer.size))
    }

    /// Bytes that [`verify`](Self::verify) hashes: every blob once.
    pub fn bytes(&self) -> u64 {
        self.blobs().iter().fold(0, |sum, (_, descriptor)| sum.saturating_add(descriptor.size))
    }

    /// Hashes every blob, then parses what is parsed when the model is served. `progress` is given the bytes hashed since
    /// its last call.
    ///
    /// # Errors
    /// The first blob that is missing or damaged, by filepath and digest.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, BundleError> {
        let blobs = self.blobs();
        for (what, descriptor) in &blobs {
            blob::hash(&blob_path(&self.dir, &descriptor.digest), what, descriptor, progress)?;
        }
        self.golden()?;
        self.generation()?;
        Ok(Verified { blobs: blobs.len(), bytes: self.bytes() })
    }

    /// Every blob once, with what errors call it: the manifest, the configuration, the layers.
    pub fn blobs(&self) -> Vec<(&str, Descriptor)> {
        let root = self.descriptor();
        let layers = self.manifest.layers.iter();
        let layers = layers.map(|layer| (layer.filepath().unwrap_or_default(), layer.clone()));
        let mut seen = BTreeSet::new();
        [("manifest", root), ("config", self.manifest.config.clone())]
            .into_iter()
            .chain(layers)
            .filter(|(_, descriptor)| seen.insert(descriptor.digest))
            .collect()
    }
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(BLOBS).join(digest.hex())
}

fn find<'a>(manifest: &'a Manifest, filepath: &str) -> Option<&'a Descriptor> {
    manifest.layers.iter().find(|layer| layer.filepath() == Some(filepath))
}

fn read_marker(dir: &Path) -> Result<(), BundleError> {
    if !dir.is_dir() {
        return Err(BundleError::Missing {
            path: dir.to_owned(),
            hint: "a bundle is a directory; make one with `agent-cli export`",
        });
    }
    let path = dir.join("oci-layout");
    let hint = "this directory is not a bundle; make one with `agent-cli export`";
    let bytes = blob::read_top(&path, limit::MARKER, hint)?;
    let name = path.display().to_string();
    let marker: LayoutMarker = json::parse(&name, &bytes)?;
    let version = &marker.image_layout_version;
    require(version == LAYOUT_VERSION, &name, "imageLayoutVersion", version, LAYOUT_VERSION)
}

fn read_index(dir: &Path) -> Result<(Descriptor, Vec<Descriptor>), BundleError> {
    let path = dir.join("index.json");
    let hint = "the copy of the bundle is incomplete: copy or export it again";
    let bytes = blob::read_top(&path, limit::INDEX, hint)?;
    let name = path.display().to_string();
    let index: Index = json::parse(&name, &bytes)?;
    let version = index.schema_version.to_string();
    require(version == "2", &name, "schemaVersion", &version, "2")?;
    // Some tools leave out the artifact type of a manifest that stands alone.
    let alone = index.manifests.len() == 1;
    let is_model = |found: &Descriptor| match found.artifact_type.as_deref() {
        None | Some(ARTIFACT_TYPE) => true,
        Some(_) => alone,
    };
    let (models, referrers): (Vec<_>, Vec<_>) = (0..).zip(index.manifests).partition(|(_, found)| is_model(found));
    let count = models.len();
    let [(at, root)]: [(usize, Descriptor); 1] = models.try_into().map_err(|_| BundleError::Value {
        file: name.clone(),
        field: "manifests".to_owned(),
        value: format!("{count} manifests"),
        allowed: "exactly one of a model: a bundle holds one".to_owned(),
    })?;
    let field = format!("manifests[{at}].mediaType");
    require(root.media_type == MEDIA_MANIFEST, &name, &field, &root.media_type, MEDIA_MANIFEST)?;
    let referrers = referrers.into_iter().map(|(_, referrer)| referrer).collect();
    Ok((root, referrers))
}

impl Manifest {
    /// Most bytes that a manifest may have.
    pub const MOST_BYTES: u64 = limit::MANIFEST;

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// It is not a model's: names the field, the value and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let manifest = json::parse("manifest", bytes)?;
        check_manifest(&manifest)?;
        Ok(manifest)
    }
}

impl Referrer {
    /// Reads and checks a manifest that refers to a model.
    ///
    /// # Errors
    /// It is not a manifest, or refers to another one than `subject`.
    pub fn parse(bytes: &[u8], subject: &Digest) -> Result<Self, BundleError> {
        let referrer: Self = json::parse(REFERRER, bytes)?;
        let check =
            |good: bool, field: &str, value: &str, allowed: &str| require(good, REFERRER, field, value, allowed);
        let version = referrer.schema_version.to_string();
        check(version == "2", "schemaVersion", &version, "2")?;
        check(referrer.media_type == MEDIA_MANIFEST, "mediaType", &referrer.media_type, MEDIA_MANIFEST)?;
        let found = referrer.subject.digest;
        check(found == *subject, "subject.digest", &found.to_string(), &subject.to_string())?;
        Ok(referrer)
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), BundleError> {
    let check = |good: bool, field: &str, value: &str, allowed: &str| require(good, "manifest", field, value, allowed);
    let version = manifest.schema_version.to_string();
    check(version == "2", "schemaVersion", &version, "2")?;
    for (field, value, allowed) in [
        ("mediaType", &manifest.media_type, MEDIA_MANIFEST),
        ("artifactType", &manifest.artifact_type, ARTIFACT_TYPE),
        ("config.mediaType", &manifest.config.media_type, MEDIA_CONFIG),
    ] {
        check(value == allowed, field, value, allowed)?;
    }
    let kinds = [MEDIA_WEIGHT, MEDIA_WEIGHT_CONFIG, MEDIA_DOC];
    let mut seen = BTreeSet::new();
    for (index, layer) in manifest.layers.iter().enumerate() {
        let kind = layer.media_type.as_str();
        let field = format!("layers[{index}].mediaType");
        check(kinds.contains(&kind), &field, kind, &kinds.join(", "))?;
        let field = format!("layers[{index}].annotations.{ANNOTATION_FILEPATH}");
        let path = layer.filepath().unwrap_or_default();
        if let Err(allowed) = check_filepath(path) {
            check(false, &field, path, allowed)?;
        }
        check(seen.insert(path), &field, path, "each filepath once")?;
    }
    Ok(())
}

fn check_config(config: &ModelPack, manifest: &Manifest) -> Result<(), BundleError> {
    let check = |good: bool, field: &str, value: &str, allowed: &str| require(good, "config", field, value, allowed);
    let files = &config.modelfs;
    check(files.kind == "layers", "modelfs.type", &files.kind, "layers")?;
    let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    let value = format!("{} digests", files.diff_ids.len());
    let allowed = "the digests of the manifest's layers, in their order";
    check(files.diff_ids == layers, "modelfs.diffIds", &value, allowed)
}

fn require(good: bool, file: &str, field: &str, value: &str, allowed: &str) -> Result<(), BundleError> {
    if good {
        return Ok(());
    }
    Err(BundleError::Value {
        file: file.to_owned(),
        field: field.to_owned(),
        value: json::shown(value),
        allowed: allowed.to_owned(),
    })
}
