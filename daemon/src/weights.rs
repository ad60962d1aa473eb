//! Weights in memory, beside the loading of everything else: read ahead where the page cache lacks them, and locked if the
//! configuration says so.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use recurve_bundle::Bundle;
use recurve_runtime::{Weights, WeightsError};
use tracing::{info, warn};

use crate::progress::Progress;

/// The thread that does it. It goes on by itself when this is dropped.
#[derive(Debug)]
pub(crate) struct Warming {
    thread: JoinHandle<Result<Option<Weights>, WeightsError>>,
}

impl Warming {
    /// Starts it. With `lock`, the weights are to stay in memory. What is there is told to `progress`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(bundle: &Bundle, lock: bool, progress: &Arc<Progress>) -> io::Result<Self> {
        let progress = Arc::clone(progress);
        let paths: Vec<PathBuf> = bundle.shards().map(|(path, _)| path).collect();
        let thread =
            std::thread::Builder::new().name("weights".to_owned()).spawn(move || warm(&paths, lock, &progress))?;
        Ok(Self { thread })
    }

    /// Waits until the weights are in memory, and returns what keeps them there; `None` where they need not stay.
    ///
    /// # Errors
    /// A file was cut short or its disk fails, or the weights cannot be mapped or locked.
    pub(crate) fn finished(self) -> Result<Option<Weights>, WeightsError> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Reads or locks these files. Where the system does not read them ahead, they are read when they are needed; a file that cannot be
/// read at all would end the process then, and is an error now.
fn warm(paths: &[PathBuf], lock: bool, progress: &Progress) -> Result<Option<Weights>, WeightsError> {
    let begun = Instant::now();
    let weights = match Weights::map(paths) {
        Ok(weights) => weights,
        Err(error) if lock => return Err(error),
        Err(error) => {
            warn!(%error, "no weights are read ahead");
            return Ok(None);
        }
    };
    // Before anything is read: the limit may not allow it.
    if lock {
        weights.check_limit()?;
    }
    let ahead = weights.read_ahead(&mut |bytes| progress.advance(bytes));
    match ahead.error {
        // What cannot be read cannot be kept either, and no limit is to blame.
        Some(error) if lock || error.is_unreadable() => return Err(error),
        Some(error) => {
            warn!(%error, "weights are read when they are needed");
            return Ok(None);
        }
        None if lock => weights.lock()?,
        None => {}
    }
    // `read` is 0 where the page cache had them all.
    info!(
        bytes = weights.bytes(),
        read = ahead.bytes,
        locked = lock,
        ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "weights in memory"
    );
    Ok(lock.then_some(weights))
}
