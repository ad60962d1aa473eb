//! The wire: the only code that names tonic.

mod access;
mod call;
mod deadline;
mod health;
mod inference;
mod listener;
mod models;
mod peer;
mod server;
mod state;
mod status;
mod tls;
mod trust;

pub use listener::{ListenError, Listener};
pub use server::Server;
pub use tls::{Tls, TlsError};

#[cfg(test)]
mod tests;
