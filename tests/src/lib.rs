//! Fixtures of the end-to-end tests: reference checkpoints, graphs, bundles, and real processes with their clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "fixtures fail as the tests do, and find their programs through the environment"
)]

pub mod altered;
pub mod authority;
pub mod bad_link;
pub mod client;
pub mod collector;
pub mod daemon;
pub mod fleet;
pub mod forge;
pub mod graph;
pub mod managed;
pub mod manager;
pub mod netns;
pub mod node;
pub mod page;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod reference;
pub mod registry;
pub mod replica;
pub mod shim;
pub mod wire;
pub mod world;
