//! A digest that is computed beside the writing: each takes about as long as the other.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use recurve_bundle::{Digest, Hasher};

/// Pieces that wait to be hashed: what a piece takes to be written differs.
const WAITING: usize = 8;

/// A hasher on a thread of its own. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Hashing {
    pieces: SyncSender<Bytes>,
    thread: JoinHandle<Digest>,
}

impl Hashing {
    /// Goes on with a hasher that has taken what came before.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn begin(mut hasher: Hasher) -> io::Result<Self> {
        let (pieces, waiting) = sync_channel::<Bytes>(WAITING);
        let thread = Builder::new().name("hashing".to_owned()).spawn(move || {
            waiting.iter().for_each(|piece| hasher.update(&piece));
            hasher.finish()
        })?;
        Ok(Self { pieces, thread })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn update(&self, piece: Bytes) -> io::Result<()> {
        self.pieces.send(piece).map_err(|_| gone())
    }

    /// The digest of all bytes.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn finish(self) -> io::Result<Digest> {
        drop(self.pieces);
        self.thread.join().map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that hashes is gone")
}
