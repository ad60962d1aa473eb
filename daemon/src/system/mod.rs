//! The operating system around the daemon: exit codes, memory, signals, and what the network is told.

pub mod announce;
pub mod exit;
pub mod memory;
pub mod signals;
