//! A link to a daemon that is slow, or breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// Bytes that are passed on at once.
const PIECE: usize = 4096;

/// Passes on what comes to its port. Ends with the test's process.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    passed: Arc<AtomicU64>,
}

/// What is wrong with the link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// After every 4 KiB towards the daemon.
    pub pause: Duration,
    /// The connection breaks once, when so many bytes have gone towards the daemon in all.
    pub breaks_after: Option<u64>,
}

impl Proxy {
    /// A link to this port of this machine.
    pub fn new(to: u16, link: Link) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let passed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&passed);
        spawn(move || {
            for here in listener.incoming().flatten() {
                // While the daemon is away, so is the link.
                let Ok(there) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (here_too, there_too) = (here.try_clone().expect("a socket"), there.try_clone().expect("a socket"));
                let counted = Arc::clone(&counted);
                spawn(move || pass(here, there, link, &counted));
                spawn(move || pass(there_too, here_too, Link::default(), &AtomicU64::new(0)));
            }
        });
        Self { port, passed }
    }

    /// Bytes that went towards the daemon so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, link: Link, counted: &AtomicU64) {
    let mut bytes = [0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let before = counted.fetch_add(count as u64, Ordering::SeqCst);
        let breaks = |at: u64| (before..before + count as u64).contains(&at);
        if link.breaks_after.is_some_and(breaks) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
        sleep(link.pause);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
