//! Sockets that systemd holds for the daemon (sd_listen_fds(3)). They stay open while the daemon is started again or replaced
//! by a newer one, so that nobody who connects meanwhile is refused.

use std::net;
use std::os::unix::net as unix;

use listenfd::ListenFd;
use rustix::net::sockopt;

use crate::config::{Address, Held};

/// What may stand in the socket unit.
pub(super) const ALLOWED: &str =
    "allowed in the socket unit are ListenStream=IP:PORT, ListenStream=PORT and ListenStream=/PATH";

/// A socket that listens already.
#[derive(Debug)]
pub enum Socket {
    /// On a port.
    Tcp(net::TcpListener),
    /// On a file.
    Unix(unix::UnixListener),
}

/// Those that were handed over, each with its address.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(Held, Socket)>);

impl Inherited {
    /// Takes what was handed over to this process; nothing where nobody did. Before any thread is started.
    ///
    /// # Errors
    /// A socket is of a kind that cannot be served.
    pub fn take() -> Result<Self, String> {
        let mut handed = ListenFd::from_env();
        (0..handed.len()).map(|index| one(&mut handed, index)).collect::<Result<_, _>>().map(Self)
    }

    /// Where they listen.
    pub fn held(&self) -> Vec<Held> {
        self.0.iter().map(|(held, _)| held.clone()).collect()
    }

    /// The socket of this address, if it was handed over.
    pub fn of(&mut self, address: &Address) -> Option<Socket> {
        let found = self.0.iter().position(|(held, _)| held.address == *address)?;
        Some(self.0.swap_remove(found).1)
    }
}

fn one(handed: &mut ListenFd, index: usize) -> Result<(Held, Socket), String> {
    if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
        let address = socket.local_addr().map_err(|error| refused(index, &error.to_string()))?;
        let only_v6 = sockopt::ipv6_v6only(&socket).unwrap_or(false);
        return Ok((Held::new(Address::Tcp(address), only_v6), Socket::Tcp(socket)));
    }
    let socket = handed.take_unix_listener(index).map_err(|error| refused(index, &error.to_string()))?;
    let socket = socket.ok_or_else(|| refused(index, "it is gone"))?;
    let address = socket.local_addr().map_err(|error| refused(index, &error.to_string()))?;
    let path = address.as_pathname().ok_or_else(|| refused(index, "it has no path"))?;
    Ok((Held::new(Address::Unix(path.to_owned()), false), Socket::Unix(socket)))
}

fn refused(index: usize, reason: &str) -> String {
    format!("socket {} that systemd hands over cannot be served: {reason}; {ALLOWED}", index + 1)
}
