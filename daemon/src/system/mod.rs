//! The operating system around the daemon: exit codes, memory, signals, what systemd hands over and is told, and what the network
//! is told.

pub mod announce;
pub mod exit;
mod group;
pub mod memory;
pub mod processors;
pub mod service;
pub mod signals;
pub mod socket_unit;
pub mod sockets;
mod status;
pub(crate) mod trim;
mod vitals;
