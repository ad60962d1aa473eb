//! A Hugging Face checkpoint's tensors: one or many safetensors files, read one piece at a time and never as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::config::ModelConfig;
use crate::shapes::{self, TensorShape};
use crate::weights::{Weights, WeightsError};

/// Largest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Largest index that is read.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Neither of the two usual files is there.
    #[error("{}: has neither model.safetensors nor model.safetensors.index.json; give the folder of a Hugging Face checkpoint in the safetensors format", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is shorter or longer than its header says.
    #[error("{}: has {have} bytes, and its header needs {want}; the file was {}, so fetch it again", path.display(), if have < want { "cut off" } else { "appended to" })]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        have: u64,
        /// Bytes there should be.
        want: u64,
    },
    /// A tensor of the configuration is in no file.
    #[error("{}: tensor `{name}` is missing{}", path.display(), match misnamed { Some(other) => format!("; is it `{other}`, which the configuration does not know?"), None => String::new() })]
    Missing {
        /// The file or index where it should be.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// A tensor that is there, is not wanted, and has the most similar name.
        misnamed: Option<String>,
    },
    /// A tensor that the configuration does not know.
    #[error("{}: tensor `{name}` does not belong to this configuration; compare num_hidden_layers, block_types and attention_bias of config.json with the weights", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{}: tensor `{name}` has shape {have:?}, and config.json makes it {want:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// As in the file.
        have: Vec<usize>,
        /// As the configuration has it.
        want: Vec<usize>,
    },
    /// A tensor of a type that is not a plain float.
    #[error("{}: tensor `{name}` has type {have:?}; allowed are F32, F16 and BF16", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// As in the file.
        have: Dtype,
    },
}

/// The opened files of a checkpoint, each tensor of the configuration found and checked.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Location>,
}

#[derive(Debug)]
struct Location {
    file: usize,
    offset: u64,
    len: usize,
    dtype: Float,
}

#[derive(Debug, Clone, Copy)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    fn bytes(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }

    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Float::F32 => {
                for (b, v) in bytes.chunks_exact(4).zip(out) {
                    *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Float::F16 => {
                for (b, v) in bytes.chunks_exact(2).zip(out) {
                    *v = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            Float::Bf16 => {
                for (b, v) in bytes.chunks_exact(2).zip(out) {
                    *v = half::bf16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
        }
    }
}

impl Checkpoint {
    /// Opens every file of the checkpoint in `dir` and finds every tensor of the configuration, before any is read.
    ///
    /// # Errors
    /// A file is missing, cut off or malformed; a tensor is missing, misnamed, of the wrong shape or type, or belongs to
    /// no layer of the configuration.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let (listing, paths) = files(dir)?;
        let mut found = BTreeMap::new();
        let mut opened = Vec::new();
        for path in paths {
            let (file, data_start, metadata) = open_file(&path)?;
            for (name, info) in metadata.tensors() {
                let entry = (opened.len(), data_start, info.clone());
                if found.insert(name.clone(), entry).is_some() {
                    return Err(CheckpointError::Malformed {
                        path,
                        reason: format!("tensor `{name}` is also in another file of the checkpoint"),
                    });
                }
            }
            opened.push((path, file));
        }
        let mut tensors = HashMap::new();
        let mut missing = Vec::new();
        for TensorShape { name, shape } in shapes::tensors(config) {
            let Some((file, data_start, info)) = found.remove(&name) else {
                missing.push(name);
                continue;
            };
            let path = || opened[file].0.clone();
            let dtype = match info.dtype {
                Dtype::F32 => Float::F32,
                Dtype::F16 => Float::F16,
                Dtype::BF16 => Float::Bf16,
                have => return Err(CheckpointError::WrongType { path: path(), name, have }),
            };
            if info.shape != shape {
                return Err(CheckpointError::WrongShape { path: path(), name, have: info.shape, want: shape });
            }
            let location =
                Location { file, offset: data_start + info.data_offsets.0 as u64, len: shape.iter().product(), dtype };
            tensors.insert(name, location);
        }
        // What else there may be: copies and tables that follow from the rest.
        found.retain(|name, _| name != "lm_head.weight" && !name.ends_with("rotary_emb.inv_freq"));
        if let Some(name) = missing.into_iter().next() {
            let misnamed = nearest(&name, found.keys());
            return Err(CheckpointError::Missing { path: listing, name, misnamed });
        }
        if let Some((name, (file, ..))) = found.into_iter().next() {
            return Err(CheckpointError::Unexpected { path: opened[file].0.clone(), name });
        }
        Ok(Self { files: opened, tensors })
    }
}

impl Weights for Checkpoint {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let location = self.tensors.get(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        let want = first.saturating_add(out.len());
        if want > location.len {
            return Err(WeightsError::Short { name: name.to_owned(), have: location.len, want });
        }
        let (path, file) = &self.files[location.file];
        let width = location.dtype.bytes();
        // Pieces of 64 Ki values: read and converted side by side.
        let piece = 1 << 16;
        out.par_chunks_mut(piece).enumerate().try_for_each(|(part, out)| {
            let begin = first + part * piece;
            let mut bytes = vec![0; out.len() * width];
            file.read_exact_at(&mut bytes, location.offset + (begin * width) as u64)
                .map_err(|source| WeightsError::Unreadable { path: path.clone(), name: name.to_owned(), source })?;
            location.dtype.decode(&bytes, out);
            match out.iter().position(|value| !value.is_finite()) {
                None => Ok(()),
                Some(at) => Err(WeightsError::NotFinite {
                    path: path.clone(),
                    name: name.to_owned(),
                    index: begin + at,
                    value: out[at],
                }),
            }
        })
    }
}

/// The file that lists the tensors, and the files that hold them.
fn files(dir: &Path) -> Result<(PathBuf, Vec<PathBuf>), CheckpointError> {
    let index = dir.join("model.safetensors.index.json");
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok((single.clone(), vec![single]));
    }
    if !index.exists() {
        return Err(CheckpointError::NoWeights { dir: dir.to_owned() });
    }
    let unreadable = |source| CheckpointError::Unreadable { path: index.clone(), source };
    let malformed = |reason: String| CheckpointError::Malformed { path: index.clone(), reason };
    let size = std::fs::metadata(&index).map_err(unreadable)?.len();
    if size > MAX_INDEX_BYTES {
        return Err(malformed(format!("has {size} bytes, and an index at most {MAX_INDEX_BYTES}")));
    }
    let bytes = std::fs::read(&index).map_err(unreadable)?;

    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("is not an index of safetensors files: {error}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let mut paths = Vec::new();
    for name in names {
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(malformed(format!("names the file `{name}`; only files beside the index are allowed")));
        }
        paths.push(dir.join(name));
    }
    if paths.is_empty() {
        return Err(malformed("its weight_map is empty".to_owned()));
    }
    Ok((index, paths))
}

/// The file, where its data begins, and what its header says; its length is checked against the header.
fn open_file(path: &Path) -> Result<(File, u64, Metadata), CheckpointError> {
    let unreadable = |source| CheckpointError::Unreadable { path: path.to_owned(), source };
    let malformed = |reason: String| CheckpointError::Malformed { path: path.to_owned(), reason };
    let file = File::open(path).map_err(unreadable)?;
    let have = file.metadata().map_err(unreadable)?.len();
    let mut length = [0; 8];
    if have < 8 {
        return Err(CheckpointError::WrongLength { path: path.to_owned(), have, want: 8 });
    }
    file.read_exact_at(&mut length, 0).map_err(unreadable)?;
    let header = u64::from_le_bytes(length);
    if header > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "its header claims {header} bytes, and the format allows {MAX_HEADER_BYTES}: this is not a safetensors file"
        )));
    }
    let data_start = 8 + header;
    if have < data_start {
        return Err(CheckpointError::WrongLength { path: path.to_owned(), have, want: data_start });
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact_at(&mut bytes, 8).map_err(unreadable)?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| malformed(format!("its header is damaged: {error}")))?;
    let want = data_start + metadata.data_len() as u64;
    if have != want {
        return Err(CheckpointError::WrongLength { path: path.to_owned(), have, want });
    }
    Ok((file, data_start, metadata))
}

/// The name that shares the most of its beginning and end with `name`, if that is more than half of it.
fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a String>) -> Option<String> {
    let common = |other: &str| {
        let head = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let rest = name.len().min(other.len()) - head;
        let tail = name.bytes().rev().zip(other.bytes().rev()).take(rest).take_while(|(a, b)| a == b).count();
        head + tail
    };
    others.max_by_key(|other| common(other)).filter(|other| 2 * common(other) > name.len()).cloned()
}
