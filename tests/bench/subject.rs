//! A bundle that is measured.

use std::fs::File;
use std::path::Path;

use recurve_bundle::{Bundle, file};
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

    /// Brings the weights into the page cache.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(crate) fn read_ahead(&self) -> Result<(), Failure> {
        for (path, _) in self.bundle.shards() {
            let read = File::open(&path).and_then(|mut shard| std::io::copy(&mut shard, &mut std::io::sink()));
            read.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
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
