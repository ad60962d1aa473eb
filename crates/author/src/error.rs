//! Why an export failed.

use std::path::PathBuf;

use recurve_bundle::BundleError;
use recurve_model::{CheckpointError, ConfigError, ShardError, WeightsError};

use crate::pack::PackError;

/// Why an export failed. Whatever the reason, nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// `config.json` cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight shard could not be read, converted or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The golden test could not be computed.
    #[error("the golden test could not be computed: {0}")]
    Golden(WeightsError),
    /// The model could not read its samples.
    #[error("the samples could not be read by the model: {0}")]
    Sample(WeightsError),
    /// The bundle could not be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What would be written is not a bundle that could be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The checkpoint has no `tokenizer.json`.
    #[error("{}: not found: {}, or pass --no-tokenizer for a bundle that reads and returns token ids only", path.display(), if *has_model { "the folder has only tokenizer.model (SentencePiece), so convert that with transformers and sentencepiece installed: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)" } else { "fetch the file that belongs to the checkpoint" })]
    NoTokenizer {
        /// Where it should be.
        path: PathBuf,
        /// Whether there is a `tokenizer.model` to make it of.
        has_model: bool,
    },
    /// `tokenizer.json` cannot be used.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file beside the weights cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file beside the weights is larger than allowed.
    #[error("{}: has {size} bytes; at most {limit} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Most bytes.
        limit: u64,
    },
    /// A file beside the weights is not what its name says.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of a file beside the weights has a value that cannot be used.
    #[error("{}: `{field}` is {value}; allowed: {allowed}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A value of the request cannot be used.
    #[error("{option} {value}: {problem}")]
    Option {
        /// The command line option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// The export was cancelled.
    #[error("cancelled: nothing was written")]
    Cancelled,
}
