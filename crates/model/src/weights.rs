//! Where weights come from: a checkpoint, a seed, or either of them as a quantized bundle rounds it.

use std::path::PathBuf;

/// Reads tensors by their Hugging Face names as f32.
pub trait Weights: Sync {
    /// Fills `out` with consecutive values of the tensor in row-major order, from value number `first` on.
    ///
    /// # Errors
    /// The tensor is not there, is shorter than asked for, cannot be read, or holds a value that is not finite.
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError>;

    /// The whole tensor of `len` values.
    ///
    /// # Errors
    /// As [`Weights::read`].
    fn all(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        let mut values = vec![0.0; len];
        self.read(name, 0, &mut values)?;
        Ok(values)
    }
}

/// Why weights could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// No such tensor.
    #[error("tensor `{name}` is not in the checkpoint")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// Fewer values than asked for.
    #[error("tensor `{name}` has {have} values, and {want} are needed")]
    Short {
        /// The tensor.
        name: String,
        /// Values that there are.
        have: usize,
        /// Values that were asked for.
        want: usize,
    },
    /// The file failed.
    #[error("{}: tensor `{name}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A value that no model can compute with.
    #[error("{}: tensor `{name}` holds {value} at index {index}; every weight must be finite, so the file is damaged or was saved during a failed training", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Where in it.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Finite weights from which the model computes what is not finite.
    #[error(
        "`{name}` makes values that are not finite ({value}): its weights, or those before it, are too large for f32; the checkpoint is damaged or was saved during a failed training"
    )]
    Overflow {
        /// The tensor, or the part of a layer.
        name: String,
        /// The first such value.
        value: f32,
    },
}
