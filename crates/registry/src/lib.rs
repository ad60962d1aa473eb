//! Bundles in OCI registries: pushed blob by blob, pulled with resume, signatures beside them as referrers.
//!
//! What comes from a registry is bounded before it is read, and used only after it was hashed. Manifests keep their bytes, so
//! a bundle has one digest wherever it lies. Nothing here reads the environment or follows its proxies.
//!
//! Steps that follow the OCI distribution specification 1.1 are named as there.

mod access;
mod answer;
mod challenge;
mod check;
mod credentials;
mod describe;
mod download;
mod error;
mod link;
mod push;
mod reference;
mod referrers;
mod retry;
mod upload;

pub use access::{Access, is_loopback};
pub use check::ReadBack;
pub use credentials::{AuthFile, Credentials};
pub use describe::Description;
pub use download::BlobStream;
pub use error::RegistryError;
pub use link::Registry;
pub use push::{Pushed, Step};
pub use reference::{Reference, ReferenceError, Repository, Version};
pub use retry::Retry;
