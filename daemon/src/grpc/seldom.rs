//! Things that are logged, but not each time they happen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Says when the next line is due.
#[derive(Debug)]
pub(super) struct Seldom {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Nothing has been logged yet.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::default() }
    }

    /// Whether a line is due now; then the next one is due after the interval.
    pub(super) fn is_due(&self) -> bool {
        // A moment is written whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() > self.interval);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_once_in_an_interval() {
        let seldom = Seldom::new(Duration::from_secs(10));
        assert!(seldom.is_due() && !seldom.is_due());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!seldom.is_due());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(seldom.is_due() && !seldom.is_due());
    }
}
