//! Addresses that are listened on.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::peer::Peer;
use crate::config::Address;
use crate::system::sockets;

/// Owner and group may connect to a Unix socket.
const SOCKET_MODE: u32 = 0o660;

/// A bound address. Dropping it closes it, and removes the file of a Unix socket that was made here.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] Option<SocketFile>),
}

/// A new connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct ListenError {
    /// The address.
    pub address: Address,
    /// What to do about it.
    pub reason: String,
}

impl Listener {
    /// Binds an address. A file left behind by a daemon that is gone is replaced; a living one's is not.
    ///
    /// # Errors
    /// The address is taken, not of this machine, or the system refuses.
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        let failed = |error: io::Error| ListenError { address: address.clone(), reason: explain(&error, address) };
        match address {
            Address::Tcp(ip) => {
                let socket = TcpListener::bind(ip).await.map_err(failed)?;
                let local = Address::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Self { socket: Socket::Tcp(socket), local })
            }
            Address::Unix(path) => {
                remove_stale(path).await.map_err(failed)?;
                let socket = UnixListener::bind(path).map_err(failed)?;
                let file = SocketFile::of(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
                Ok(Self { socket: Socket::Unix(socket, Some(file)), local: address.clone() })
            }
        }
    }

    /// Takes over a socket that listens on this address already. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn adopt(address: &Address, socket: sockets::Socket) -> Result<Self, ListenError> {
        let failed = |error: io::Error| ListenError { address: address.clone(), reason: error.to_string() };
        let socket = match socket {
            sockets::Socket::Tcp(socket) => {
                socket.set_nonblocking(true).map_err(failed)?;
                Socket::Tcp(TcpListener::from_std(socket).map_err(failed)?)
            }
            sockets::Socket::Unix(socket) => {
                socket.set_nonblocking(true).map_err(failed)?;
                Socket::Unix(UnixListener::from_std(socket).map_err(failed)?, None)
            }
        };
        Ok(Self { socket, local: address.clone() })
    }

    /// The address, with the port that the system chose.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                // Fails where the other end is gone already, which the first read will tell.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp(from.ip())))
            }
            Socket::Unix(socket, _) => {
                let (stream, _) = socket.accept().await?;
                let user = stream.peer_cred().ok().map(|process| process.uid());
                Ok((Stream::Unix(stream), Peer::Unix(user)))
            }
        }
    }
}

fn explain(error: &io::Error, address: &Address) -> String {
    let advice = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => "another process listens there; stop it or choose another address",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address",
        (io::ErrorKind::PermissionDenied, Address::Tcp(_)) => "ports below 1024 need the right to bind them",
        (io::ErrorKind::PermissionDenied, Address::Unix(_)) => "this user may not make files in that folder",
        (io::ErrorKind::NotFound, Address::Unix(_)) => "its folder does not exist",
        (io::ErrorKind::AlreadyExists, Address::Unix(_)) => "there is a file of that name that is not a socket",
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}

/// Removes the socket of a daemon that is gone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The file of our socket, told from a later one by its inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Address {
        Address::Unix(path.into())
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Listener::bind(first.local()).await.unwrap_err().to_string();
        assert!(error.contains(&first.local().to_string()) && error.contains("another process"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let living = Listener::bind(&unix(&path)).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let error = Listener::bind(&unix(&path)).await.unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(living);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "kept").unwrap();
        let error = Listener::bind(&unix(&path)).await.unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        let nowhere = Listener::bind(&unix(&folder.path().join("none/a.sock"))).await.unwrap_err().to_string();
        assert!(nowhere.contains("folder does not exist"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_later_socket_of_the_same_name_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = Listener::bind(&unix(&path)).await.unwrap();
        let kept = folder.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        let second = Listener::bind(&unix(&path)).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
