//! A Hugging Face checkpoint's tensors: one or many safetensors files, read one piece at a time and never as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::absent;
use crate::config::ModelConfig;
use crate::copies;
use crate::files;
use crate::shapes::{self, TensorShape};
use crate::weights::{Weights, WeightsError};

/// Largest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No file of the folder holds weights that can be read.
    #[error("{}: has no weights in the safetensors format; {}", dir.display(), match instead { Some(other) if [".bin", ".pt", ".pth"].iter().any(|end| other.ends_with(end)) => format!("convert `{other}` with transformers: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW), and the tokenizer alike with AutoTokenizer"), Some(other) => format!("`{other}` cannot be converted: download the checkpoint's *.safetensors files"), None => "give the folder of a Hugging Face checkpoint, which has model.safetensors, or model.safetensors.index.json and what it names".to_owned() })]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// A file of weights in another format.
        instead: Option<String>,
    },
    /// Several files could be meant.
    #[error("{}: has several files of weights: {names}; leave one, or add a model.safetensors.index.json that says which tensor is where", dir.display())]
    Ambiguous {
        /// The folder.
        dir: PathBuf,
        /// Their names.
        names: String,
    },
    /// A file of a numbered series is missing.
    #[error("{}: is missing from a numbered series of files: download it", path.display())]
    NoShard {
        /// The file.
        path: PathBuf,
    },
    /// An adapter is no model of its own.
    #[error("{}: is an adapter (LoRA), which needs its base model; merge the two first: with peft, `model.merge_and_unload()`, then save_pretrained", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
    },
    /// A tensor that follows from the others in every RecurrentGemma, and here does not.
    #[error("{}: tensor `{name}` differs from {of}: value {index} is {have}, expected {want}; {advice}", path.display())]
    Contradicts {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The first value that differs.
        index: usize,
        /// That value.
        have: f32,
        /// What it follows from.
        of: &'static str,
        /// The value that follows.
        want: f32,
        /// What to do.
        advice: &'static str,
    },
    /// A value could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
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
    /// Opens every file of the checkpoint in `dir` and finds every tensor of the configuration, before any is read. A tensor
    /// that follows from others, such as `lm_head.weight`, is then compared with them.
    ///
    /// # Errors
    /// A file is missing, cut off or malformed; a tensor is missing, misnamed, of the wrong shape or type, belongs to no
    /// layer of the configuration, or is another one than follows.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let (listing, paths) = files::find(dir)?;
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
            let location = location(&opened[file].0, &name, &info, &shape, file, data_start)?;
            tensors.insert(name, location);
        }
        // What else there may be: copies and tables that follow from the rest.
        let copies: Vec<_> = copies::shapes(found.keys(), config)
            .into_iter()
            .filter_map(|(name, shape)| found.remove(&name).map(|entry| (name, shape, entry)))
            .collect();
        if let Some(name) = missing.into_iter().next() {
            let misnamed = nearest(&name, found.keys());
            return Err(CheckpointError::Missing { path: listing, name, misnamed });
        }
        if let Some((name, (file, ..))) = found.into_iter().next() {
            return Err(CheckpointError::Unexpected { path: opened[file].0.clone(), name });
        }
        let mut checkpoint = Self { files: opened, tensors };
        for (name, shape, (file, data_start, info)) in copies {
            let location = location(&checkpoint.files[file].0, &name, &info, &shape, file, data_start)?;
            checkpoint.tensors.insert(name.clone(), location);
            copies::check(&checkpoint, &name, config)?;
        }
        Ok(checkpoint)
    }

    /// The file that holds a tensor.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.tensors.get(name).map(|location| self.files[location.file].0.clone()).unwrap_or_default()
    }

    /// Number of values of a tensor.
    pub(crate) fn len_of(&self, name: &str) -> usize {
        self.tensors.get(name).map_or(0, |location| location.len)
    }
}

/// Where a tensor lies, if its type and shape are as they must be.
fn location(
    path: &Path,
    name: &str,
    info: &TensorInfo,
    shape: &[usize],
    file: usize,
    data_start: u64,
) -> Result<Location, CheckpointError> {
    let (path, name) = (path.to_owned(), name.to_owned());
    let dtype = match info.dtype {
        Dtype::F32 => Float::F32,
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::Bf16,
        have => return Err(CheckpointError::WrongType { path, name, have }),
    };
    if info.shape != shape {
        return Err(CheckpointError::WrongShape { path, name, have: info.shape.clone(), want: shape.to_owned() });
    }
    Ok(Location { file, offset: data_start + info.data_offsets.0 as u64, len: shape.iter().product(), dtype })
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

/// The file, where its data begins, and what its header says; its length is checked against the header.
fn open_file(path: &Path) -> Result<(File, u64, Metadata), CheckpointError> {
    let unreadable = |source| CheckpointError::Unreadable { path: path.to_owned(), source };
    let malformed = |reason: String| CheckpointError::Malformed { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| files::gone(path, source))?;
    let have = file.metadata().map_err(unreadable)?.len();
    if absent::is_pointer_file(&file) {
        return Err(malformed(absent::POINTER.to_owned()));
    }
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
