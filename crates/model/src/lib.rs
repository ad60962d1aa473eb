//! From a Hugging Face RecurrentGemma checkpoint to an ONNX graph and quantized weights, without Python and without
//! ever holding the model in memory; and the slow, exact forward pass that all of it is compared with.

pub mod absent;
mod block;
mod builder;
mod checkpoint;
mod config;
mod copies;
mod fields;
mod files;
mod graph;
pub mod quantize;
mod random;
pub mod reference;
pub mod shapes;
mod shard;
mod weights;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{BlockType, ConfigError, ModelConfig};
pub use graph::{ExportOptions, GraphPlan};
pub use quantize::{Importance, Rounded, Stored, WeightFormat};
pub use random::RandomWeights;
pub use shapes::{StateKind, StateSpec};
pub use shard::{Shard, ShardError, TensorReport};
pub use weights::{Weights, WeightsError};
