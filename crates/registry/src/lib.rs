//! Bundles in OCI registries.
