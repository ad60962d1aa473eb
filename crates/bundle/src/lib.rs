//! Reads and verifies a bundle: an OCI image layout directory that holds one RecurrentGemma model as a CNCF ModelPack
//! artifact. Nothing here writes; `recurve-author` does.
//!
//! A bundle is read in the order in which trust is passed on: `index.json` names the manifest by digest, the manifest
//! names the configuration and every layer by digest. Bytes are used only after they were bounded and hashed. Weights are
//! the exception, because they are mapped and not read: [`Bundle::open`] checks that they are there with the declared
//! size, and [`Bundle::verify`] hashes them.

mod blob;
mod diff;
mod digest;
mod error;
mod filepath;
mod generation;
mod golden;
mod info;
mod json;
mod layout;
mod manifest;
pub mod shell;

pub use blob::{Hasher, hash_file};
pub use diff::{Change, Diff, FileChange};
pub use digest::Digest;
pub use error::{BundleError, is_unreadable};
pub use filepath::check_filepath;
pub use generation::{GENERATION_FORMAT, GenerationDefaults, REPETITION_PENALTY};
pub use golden::{GOLDEN_FORMAT, Golden, Tolerance};
pub use info::{
    ARCHITECTURE, INFO_FORMAT, MAX_NAME, ModelInfo, NAME_ALLOWED, StateInfo, StateKind, valid_in_name, valid_name,
};
pub use layout::{Bundle, Verified, file};
pub use manifest::{
    ANNOTATION_FILEPATH, ANNOTATION_REF_NAME, ANNOTATION_TITLE, ARTIFACT_SIGNATURES, ARTIFACT_TYPE, Descriptor, Index,
    LAYOUT_VERSION, LayoutMarker, MEDIA_CONFIG, MEDIA_DOC, MEDIA_EMPTY, MEDIA_INDEX, MEDIA_MANIFEST, MEDIA_TUF,
    MEDIA_WEIGHT, MEDIA_WEIGHT_CONFIG, Manifest, ModelDescriptor, ModelFs, ModelPack, Referrer, TechnicalConfig,
    parameter_size,
};
