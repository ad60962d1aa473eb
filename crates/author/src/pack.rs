//! Writes a bundle: blobs under their digests, then manifest and index, in a directory beside the output that takes the
//! output's place when all of it is on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use recurve_bundle::{
    ANNOTATION_FILEPATH, ANNOTATION_REF_NAME, ARTIFACT_TYPE, Descriptor, Digest, Hasher, MEDIA_CONFIG, MEDIA_MANIFEST,
    MEDIA_WEIGHT_CONFIG, Manifest, ModelDescriptor, ModelFs, ModelInfo, ModelPack, TechnicalConfig, file,
    parameter_size,
};
use serde::Serialize;

use crate::place::Output;

/// The tag under which `index.json` names the manifest.
pub(crate) const TAG: &str = "latest";

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The output is there already.
    #[error("{}: exists already: give another --out, or --overwrite to replace it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// What is there is not a bundle, so replacing it may destroy something else.
    #[error("{}: is not a bundle, so it is not replaced: give another --out, or remove it yourself", path.display())]
    NotABundle {
        /// The output.
        path: PathBuf,
    },
    /// The output's name or its parent directory cannot be used.
    #[error("{}: {problem}", path.display())]
    Output {
        /// The output.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// There is less room than the bundle needs.
    #[error("{}: {needed} bytes are needed, but only {free} are free: make room or give another --out", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes of the weights.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A blob that comes from elsewhere is not what its descriptor says.
    #[error("blob {declared} came with other bytes ({actual}): they were thrown away: fetch it again")]
    WrongBytes {
        /// What was declared.
        declared: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob that comes from elsewhere has another size than its descriptor says.
    #[error("blob {digest}: expected {size} bytes, received {came}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// Bytes that came.
        came: u64,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl PackError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A bundle that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// The manifest's digest.
    pub digest: Digest,
    /// Bytes of all blobs.
    pub bytes: u64,
}

/// A bundle that is being written. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct BundleWriter {
    output: Output,
    blobs: PathBuf,
    layers: Vec<Descriptor>,
    sizes: BTreeMap<Digest, u64>,
}

impl BundleWriter {
    /// Begins a bundle that will lie at `out`, with its blobs in a new directory beside it until then.
    ///
    /// # Errors
    /// When `out` exists and `overwrite` is false or it is not a bundle, or when the directory around it is missing or
    /// not writable.
    pub fn create(out: &Path, overwrite: bool) -> Result<Self, PackError> {
        let output = Output::prepare(out, overwrite)?;
        let blobs = output.staging().join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(PackError::io("create", &blobs))?;
        Ok(Self { output, blobs, layers: Vec::new(), sizes: BTreeMap::new() })
    }

    /// Makes sure that `bytes` more fit on the disk.
    ///
    /// # Errors
    /// When they do not.
    pub fn reserve(&self, bytes: u64) -> Result<(), PackError> {
        self.output.reserve(bytes)
    }

    /// Adds a layer from memory. Layers keep the order in which they are added.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, filepath: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, PackError> {
        let write = |out: &mut dyn Write| out.write_all(bytes).map_err(PackError::io("write", Path::new(filepath)));
        self.stream(filepath, media_type, write).map(|(digest, ())| digest)
    }

    /// Adds a layer that `write` produces piece by piece; the bytes are hashed as they pass. Gives its digest and what
    /// `write` returned.
    ///
    /// # Errors
    /// When it cannot be written, or `write` fails.
    pub fn stream<T, E: From<PackError>>(
        &mut self,
        filepath: &str,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(Digest, T), E> {
        let (digest, size, value) = self.blob(write)?;
        self.layers.push(Descriptor {
            annotations: BTreeMap::from([(ANNOTATION_FILEPATH.to_owned(), filepath.to_owned())]),
            ..descriptor(media_type, digest, size)
        });
        Ok((digest, value))
    }

    /// Where a blob lies until the bundle takes its place.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Adds `recurve.json`, writes configuration, manifest and index, and puts the bundle in its place: at every instant,
    /// a power cut included, there is the old output or the whole new one.
    ///
    /// # Errors
    /// When something cannot be written, synced or renamed; then the output is as it was.
    pub fn finish(mut self, info: &ModelInfo) -> Result<Packed, PackError> {
        let document = pretty(info, file::INFO)?;
        self.add(file::INFO, MEDIA_WEIGHT_CONFIG, &document)?;
        let config = self.document(&model_pack(info, &self.layers), MEDIA_CONFIG)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MEDIA_MANIFEST.to_owned(),
            artifact_type: ARTIFACT_TYPE.to_owned(),
            config,
            layers: std::mem::take(&mut self.layers),
            annotations: BTreeMap::new(),
        };
        let root = self.document(&manifest, MEDIA_MANIFEST)?;
        let packed = Packed { digest: root.digest, bytes: self.sizes.values().sum() };
        let model = Descriptor {
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            annotations: BTreeMap::from([(ANNOTATION_REF_NAME.to_owned(), TAG.to_owned())]),
            ..root
        };
        self.output.finish(vec![model])?;
        Ok(packed)
    }

    /// Writes a blob that is a JSON document.
    fn document(&mut self, document: &impl Serialize, media_type: &str) -> Result<Descriptor, PackError> {
        let bytes = compact(document, media_type)?;
        let blobs = self.blobs.clone();
        let write = |out: &mut dyn Write| out.write_all(&bytes).map_err(PackError::io("write", &blobs));
        let (digest, size, ()) = self.blob(write)?;
        Ok(descriptor(media_type, digest, size))
    }

    /// Writes and syncs a blob, which gets its name when its digest is known.
    fn blob<T, E: From<PackError>>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(Digest, u64, T), E> {
        let partial = self.blobs.join("partial");
        let file = File::create(&partial).map_err(PackError::io("create", &partial))?;
        let mut out = Hashing { file: BufWriter::with_capacity(1 << 20, file), hasher: Hasher::default(), bytes: 0 };
        let value = write(&mut out)?;
        let Hashing { file, hasher, bytes } = out;
        let (digest, path) = {
            let digest = hasher.finish();
            (digest, self.blobs.join(digest.hex()))
        };
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(PackError::io("write", &path))?;
        self.sizes.insert(digest, bytes);
        Ok((digest, bytes, value))
    }
}

/// Hashes and counts what it passes on.
struct Hashing {
    file: BufWriter<File>,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, artifact_type: None, annotations: BTreeMap::new() }
}

/// What other tools are told of the model.
fn model_pack(info: &ModelInfo, layers: &[Descriptor]) -> ModelPack {
    ModelPack {
        descriptor: ModelDescriptor { name: Some(info.name.clone()), family: Some(info.architecture.clone()) },
        config: TechnicalConfig {
            architecture: Some(info.architecture.clone()),
            format: Some("onnx".to_owned()),
            param_size: Some(parameter_size(info.parameters)),
            precision: Some("float32".to_owned()),
            quantization: info.block_size.map(|_| info.weights.clone()),
        },
        modelfs: ModelFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|layer| layer.digest).collect() },
    }
}

pub(crate) fn compact(document: &impl Serialize, name: &str) -> Result<Vec<u8>, PackError> {
    serde_json::to_vec(document).map_err(|error| PackError::io("write", Path::new(name))(error.into()))
}

/// JSON for a layer that people may read.
pub(crate) fn pretty(document: &impl Serialize, name: &str) -> Result<Vec<u8>, PackError> {
    let mut bytes =
        serde_json::to_vec_pretty(document).map_err(|error| PackError::io("write", Path::new(name))(error.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}
