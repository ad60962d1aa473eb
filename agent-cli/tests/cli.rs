//! The program as a person runs it, against a daemon of the test's own: what it prints, where, and how it exits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must stop, in its helpers too"
)]

#[path = "cli/devices.rs"]
mod devices;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/pty.rs"]
mod pty;

#[path = "cli/bundles.rs"]
mod bundles;
#[path = "cli/chatting.rs"]
mod chatting;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/fleets.rs"]
mod fleets;
#[path = "cli/generating.rs"]
mod generating;
#[path = "cli/measuring.rs"]
mod measuring;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/scoring.rs"]
mod scoring;
#[path = "cli/terminals.rs"]
mod terminals;
