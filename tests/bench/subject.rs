//! A bundle that is measured.

use std::fs::File;
use std::path::{Path, PathBuf};

use recurve_bundle::{Bundle, file};
use recurve_runtime::Weights;
use serde_json::{Value, json};

use crate::Failure;

/// Weights of a model for which a walk of many thousand steps takes seconds, in bytes.
const SMALL: u64 = 64 << 20;

/// A bundle, opened.
pub(crate) struct Subject {
    pub(crate) bundle: Bundle,
    /// Bytes of the shards: what a step of one token reads, the embedding once, for the head.
    pub(crate) weight_bytes: u64,
}

impl Subject {
    /// # Errors
    /// It is no bundle, or not a whole one.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let bundle = Bundle::open(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let weight_bytes = bundle.shards().map(|(_, bytes)| bytes).sum();
        Ok(Self { bundle, weight_bytes })
    }

    /// The model's name, and the block size where it has one: bundles of one model differ in it.
    pub(crate) fn name(&self) -> String {
        let info = self.bundle.info();
        match info.block_size {
            Some(block) => format!("{} {} block {block}", info.name, info.weights),
            None => format!("{} {}", info.name, info.weights),
        }
    }

    /// Whether steps take well below a millisecond.
    pub(crate) fn is_small(&self) -> bool {
        self.weight_bytes <= SMALL
    }

    /// Brings the weights into the page cache as a daemon does after the machine has started: in large pages, where kernel
    /// and file system have them. What was there is dropped before.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(crate) fn read_ahead(&self) -> Result<(), Failure> {
        let paths: Vec<PathBuf> = self.bundle.shards().map(|(path, _)| path).collect();
        for path in &paths {
            let dropped = File::open(path)
                .and_then(|shard| Ok(rustix::fs::fadvise(shard, 0, None, rustix::fs::Advice::DontNeed)?));
            dropped.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        match Weights::map(&paths)?.read_ahead(&mut |_| {}).error {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// What the figures are figures of.
    pub(crate) fn json(&self) -> Value {
        let info = self.bundle.info();
        json!({
            "name": info.name,
            "digest": self.bundle.digest().to_string(),
            "parameters": info.parameters,
            "weights": info.weights,
            "block_size": info.block_size,
            "weight_bytes": self.weight_bytes,
            "state_bytes": info.state_bytes(),
            "tokenizer": self.bundle.file(file::TOKENIZER).is_some(),
        })
    }
}
