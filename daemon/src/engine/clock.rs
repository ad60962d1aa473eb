//! When things happened to a job. The engine writes it, and the caller's side reads it however the job ends: also when its caller
//! goes away, or its deadline passes, before it had a row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::job::Timings;

/// The moments of one job, each as nanoseconds since it was accepted; 0 for what has not happened.
#[derive(Debug)]
pub struct Clock {
    accepted: Instant,
    slot: AtomicU64,
    read: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Clock {
    /// Of a job that was accepted then.
    pub(crate) fn new(accepted: Instant) -> Self {
        let [slot, read, first, last] = [const { AtomicU64::new(0) }; 4];
        Self { accepted, slot, read, first, last }
    }

    /// The job has a row.
    pub(super) fn has_slot(&self) {
        self.slot.store(self.now(), Ordering::Relaxed);
    }

    /// The whole prompt was read.
    pub(super) fn has_read(&self) {
        self.read.store(self.now(), Ordering::Relaxed);
    }

    /// A token was chosen.
    pub(super) fn has_token(&self) {
        let now = self.now();
        if self.first.load(Ordering::Relaxed) == 0 {
            self.first.store(now, Ordering::Relaxed);
        }
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long the job has had its row.
    pub(super) fn occupied(&self) -> Duration {
        let slot = self.slot.load(Ordering::Relaxed);
        if slot == 0 { Duration::ZERO } else { Duration::from_nanos(self.now().saturating_sub(slot)) }
    }

    /// Where the time went until now. What goes on still, or was broken off, counts until now.
    pub(crate) fn timings(&self) -> Timings {
        let now = self.now();
        let at = |moment: &AtomicU64| Some(moment.load(Ordering::Relaxed)).filter(|at| *at > 0);
        let between = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from));
        let (slot, read, first) = (at(&self.slot), at(&self.read), at(&self.first));
        Timings {
            queue: between(0, slot.unwrap_or(now)),
            prefill: slot.map_or(Duration::ZERO, |slot| between(slot, read.unwrap_or(now))),
            time_to_first_token: between(0, first.unwrap_or(0)),
            decode: first.zip(at(&self.last)).map_or(Duration::ZERO, |(first, last)| between(first, last)),
            total: between(0, now),
        }
    }

    /// At least 1: 0 is what has not happened.
    fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(ms: u64) -> Clock {
        Clock::new(Instant::now() - Duration::from_millis(ms))
    }

    #[test]
    fn a_job_without_a_row_waits_until_it_ends() {
        let timings = ago(300).timings();
        assert!(timings.queue >= Duration::from_millis(300), "{timings:?}");
        assert_eq!(timings.queue, timings.total);
        let none = Duration::ZERO;
        assert_eq!((timings.prefill, timings.time_to_first_token, timings.decode), (none, none, none));
    }

    #[test]
    fn a_job_that_ends_while_it_reads_has_read_until_then() {
        let clock = ago(300);
        clock.slot.store(100_000_000, Ordering::Relaxed);
        let timings = clock.timings();
        assert_eq!(timings.queue, Duration::from_millis(100));
        assert_eq!(timings.queue + timings.prefill, timings.total);
        assert_eq!(timings.time_to_first_token, Duration::ZERO);
    }

    #[test]
    fn each_part_ends_where_the_next_begins() {
        let clock = ago(50);
        clock.has_slot();
        clock.has_read();
        clock.has_token();
        clock.has_token();
        let timings = clock.timings();
        assert!(timings.queue >= Duration::from_millis(50), "{timings:?}");
        assert!(timings.queue + timings.prefill <= timings.time_to_first_token, "{timings:?}");
        assert!(timings.time_to_first_token + timings.decode <= timings.total, "{timings:?}");
    }
}
