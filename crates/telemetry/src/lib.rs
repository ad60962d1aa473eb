//! What telemetry is made of, for the daemon that measures and the command line that gathers: the list of metrics, records
//! of minutes and hours, histograms, events. Plain data: no clock, no disk, no network.

pub mod builder;
pub mod catalogue;
pub mod event;
pub mod histogram;
pub mod otlp;
pub mod packed;
pub mod rollup;

/// OTLP's messages and clients. The crate that has them calls them by the library that it made them with.
pub use opentelemetry_proto::tonic as wire;
/// What makes OTLP's spans of the library's own.
pub use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
/// The same.
pub use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
