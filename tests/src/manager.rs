//! What systemd is to a daemon: it hears how the daemon is, and holds its sockets.

use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::LIMIT;

/// The socket on which a daemon tells how it is (sd_notify(3)).
#[derive(Debug)]
pub struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
    /// What came and nobody waited for yet.
    heard: RefCell<Vec<String>>,
}

impl Manager {
    /// One that listens.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        Self { dir, socket, heard: RefCell::default() }
    }

    /// What `NOTIFY_SOCKET` is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// Waits for an assignment that begins with this, takes it, and gives what follows.
    ///
    /// # Panics
    /// It does not come in time; what came instead is in the message.
    pub fn wait_for(&self, beginning: &str) -> String {
        let until = Instant::now() + LIMIT;
        loop {
            let mut heard = self.heard.borrow_mut();
            if let Some(found) = heard.iter().position(|line| line.starts_with(beginning)) {
                return heard.remove(found)[beginning.len()..].to_owned();
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) => heard.extend(self.next(left)),
                None => panic!("no {beginning}, but {heard:?}"),
            }
        }
    }

    /// All assignments that nobody waited for, and those that come within this time.
    pub fn within(&self, time: Duration) -> Vec<String> {
        let (until, mut lines) = (Instant::now() + time, self.heard.take());
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            lines.extend(self.next(left));
        }
        lines
    }

    fn next(&self, time: Duration) -> Vec<String> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(time.max(Duration::from_millis(1)))).expect("a timeout");
        let Ok(length) = self.socket.recv(&mut bytes) else { return Vec::new() };
        String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}

/// A port and a file that are listened on before there is a daemon.
#[derive(Debug)]
pub struct Sockets {
    dir: TempDir,
    tcp: TcpListener,
    unix: UnixListener,
}

impl Sockets {
    /// New ones.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let unix = UnixListener::bind(dir.path().join("recurved.sock")).expect("a socket");
        Self { dir, tcp: TcpListener::bind("127.0.0.1:0").expect("a port"), unix }
    }

    /// Both, to be handed over.
    pub fn handed_over(&self) -> [OwnedFd; 2] {
        [self.tcp.try_clone().expect("a copy").into(), self.unix.try_clone().expect("a copy").into()]
    }

    /// The port's address, as `agent-cli --on` takes it.
    pub fn tcp(&self) -> String {
        self.tcp.local_addr().expect("an address").to_string()
    }

    /// The file's address.
    pub fn unix(&self) -> String {
        format!("unix:{}", self.dir.path().join("recurved.sock").display())
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self::new()
    }
}
