//! A thread that looks after a model's steps: one that takes too long is ended.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::terminate::Terminator;

/// How often it looks, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Looks as long as it lives.
#[derive(Debug)]
pub(crate) struct StepLimit {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StepLimit {
    /// Ends every run that takes longer than this.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(terminator: Terminator, limit: Duration) -> std::io::Result<Self> {
        let (end, ended) = channel();
        let look = LOOK.min(limit / 4).max(Duration::from_millis(1));
        let thread = std::thread::Builder::new().name("step-limit".to_owned()).spawn(move || {
            while ended.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
                terminator.terminate_after(limit);
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for StepLimit {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
