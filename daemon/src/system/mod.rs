//! The operating system around the daemon: exit codes, log, signals, memory, and what the network is told.

pub mod announce;
pub mod exit;
pub mod logging;
pub mod memory;
pub mod signals;
