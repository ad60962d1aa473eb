//! Who is at the other end of a connection.

use std::net::IpAddr;

use http::Extensions;

use crate::engine::job::ClientId;

/// The other end of a connection; every request on it carries this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A machine.
    Tcp(IpAddr),
    /// A machine that showed a certificate of the configured authority.
    Certified(IpAddr),
    /// A process on this machine.
    Unix,
}

/// Whose request this is. The queue is fair between these, and the log names them.
pub(super) fn client(extensions: &Extensions) -> ClientId {
    match extensions.get::<Peer>() {
        Some(Peer::Tcp(ip) | Peer::Certified(ip)) => ClientId(ip.to_canonical().to_string().into()),
        Some(Peer::Unix) | None => ClientId("unix".into()),
    }
}
