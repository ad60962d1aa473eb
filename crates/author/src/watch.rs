//! Progress and cancelling.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use recurve_model::{Weights, WeightsError};

/// What an export is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding out what matters in each matrix, which reads about this many weights.
    Calibrate(u64),
    /// Writing this many bytes of weights.
    Weights(u64),
    /// Computing the golden test, which reads about this many weights.
    Golden(u64),
    /// Comparing what was stored with the checkpoint, which reads about this many weights.
    Compare(u64),
    /// Writing the rest and putting the bundle in its place.
    Finish,
}

/// Is told how an export proceeds.
pub trait Observer: Sync {
    /// A phase begins.
    fn phase(&self, phase: Phase);
    /// This much more of the phase's total is done.
    fn advance(&self, amount: u64);
}

/// Weights that can no longer be read once the export was cancelled, so that every loop over them ends.
pub(crate) struct Watched<'a> {
    pub(crate) weights: &'a dyn Weights,
    pub(crate) cancel: &'a AtomicBool,
}

impl Weights for Watched<'_> {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        if self.cancel.load(Ordering::Relaxed) {
            let source = io::Error::from(io::ErrorKind::Interrupted);
            return Err(WeightsError::Unreadable { path: PathBuf::new(), name: name.to_owned(), source });
        }
        self.weights.read(name, first, out)
    }
}

/// Weights whose reading is progress.
pub(crate) struct Counted<'a> {
    pub(crate) weights: &'a dyn Weights,
    pub(crate) observer: &'a dyn Observer,
}

impl Weights for Counted<'_> {
    fn read(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        self.weights.read(name, first, out)?;
        self.observer.advance(out.len() as u64);
        Ok(())
    }
}
