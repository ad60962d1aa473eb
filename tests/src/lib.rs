//! Fixtures of the end-to-end tests: reference checkpoints, graphs, and (in `daemon`) real processes.

pub mod graph;
pub mod reference;
