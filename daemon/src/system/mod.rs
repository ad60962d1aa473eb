//! The operating system around the daemon: exit codes, log and signals.

pub mod exit;
pub mod logging;
pub mod memory;
pub mod signals;
