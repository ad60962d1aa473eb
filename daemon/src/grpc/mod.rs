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
mod status;

pub use listener::{ListenError, Listener};
pub use server::Server;

#[cfg(test)]
mod tests;
