//! The wire: the only code that names tonic.

mod access;
mod call;
mod cause;
mod collector;
mod concern;
mod deadline;
mod describe;
mod handshake;
mod health;
mod inference;
mod lines;
mod listener;
mod live;
mod measured;
mod models;
mod node;
mod peer;
mod protocol;
mod record;
mod resets;
mod seldom;
mod server;
mod state;
mod status;
mod tls;
mod trust;

pub use collector::{CollectorClient, Sent};
pub use concern::{Concern, concerns, concerns_at};
pub use listener::{ListenError, Listener};
pub use server::Server;
pub use tls::{Tls, TlsError};

#[cfg(test)]
mod tests;
