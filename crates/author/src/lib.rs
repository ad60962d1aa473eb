//! Makes bundles: writes the OCI layout, turns a Hugging Face checkpoint into one, and signs it.
//!
//! The daemon does not depend on this crate.

mod card;
mod chat;
mod compare;
mod describe;
mod error;
mod export;
mod folder;
mod generation;
mod json;
mod layout;
mod name;
mod pack;
mod place;
mod sample;
mod template;
mod tokenizer;
pub mod trust;
mod watch;

pub use chat::ChatRules;
pub use compare::Comparison;
pub use error::ExportError;
pub use export::{
    DEFAULT_BLOCK_SIZE, DEFAULT_MAX_CHUNK, DEFAULT_SAMPLE_TOKENS, ExportRequest, Exported, Samples, Source, export,
};
pub use layout::{IncomingBlob, LayoutWriter};
pub use pack::{BundleWriter, PackError, Packed};
pub use recurve_model::{ExportOptions, ShardError, TensorReport, WeightFormat};
pub use template::ChatTemplate;
pub use watch::{Observer, Phase};
