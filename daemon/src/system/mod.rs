//! The operating system around the daemon: exit codes, memory and signals.

pub mod exit;
pub mod memory;
pub mod signals;
