//! Sockets that systemd holds for the daemon (sd_listen_fds(3)). They stay open while the daemon is started again or replaced
//! by a newer one, so that nobody who connects meanwhile is refused.

use std::net;
use std::os::unix::net as unix;

use listenfd::ListenFd;

use crate::config::Address;

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
pub struct Inherited(Vec<(Address, Socket)>);

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
    pub fn addresses(&self) -> Vec<Address> {
        self.0.iter().map(|(address, _)| address.clone()).collect()
    }

    /// The socket of this address, if it was handed over.
    pub fn of(&mut self, address: &Address) -> Option<Socket> {
        let found = self.0.iter().position(|(held, _)| held == address)?;
        Some(self.0.swap_remove(found).1)
    }
}

fn one(handed: &mut ListenFd, index: usize) -> Result<(Address, Socket), String> {
    if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
        let address = socket.local_addr().map_err(|error| refused(index, &error.to_string()))?;
        return Ok((Address::Tcp(address), Socket::Tcp(socket)));
    }
    let socket = handed.take_unix_listener(index).map_err(|error| refused(index, &error.to_string()))?;
    let socket = socket.ok_or_else(|| refused(index, "it is gone"))?;
    let address = socket.local_addr().map_err(|error| refused(index, &error.to_string()))?;
    let path = address.as_pathname().ok_or_else(|| refused(index, "it has no path"))?;
    Ok((Address::Unix(path.to_owned()), Socket::Unix(socket)))
}

fn refused(index: usize, reason: &str) -> String {
    format!(
        "socket {} that systemd hands over cannot be served: {reason}; allowed in the socket unit are ListenStream=IP:PORT, \
         ListenStream=PORT and ListenStream=/PATH",
        index + 1
    )
}
