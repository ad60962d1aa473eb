//! The little of ONNX that the exporter needs: its messages, and a builder that names values and nodes.

pub(crate) mod builder;
#[allow(missing_docs)]
pub(crate) mod proto;
