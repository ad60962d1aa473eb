//! Whether other work wants a thread's core.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a thread is watched before it is judged: some turns of the system's scheduler.
const WINDOW: Duration = Duration::from_millis(20);
/// The part of a window that others have to have had.
const TAKEN: u32 = 8;

/// Watches the thread that it belongs to: what is neither computed nor slept, others had.
#[derive(Debug)]
pub(crate) struct Contention {
    begun: Instant,
    /// Computed before the window.
    computed: Duration,
    slept: Duration,
    found: bool,
}

impl Contention {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), computed: computed(), slept: Duration::ZERO, found: false }
    }

    /// The thread sleeps in `sleep`, because it wants to.
    pub(crate) fn sleep(&mut self, sleep: impl FnOnce()) {
        let begun = Instant::now();
        sleep();
        self.slept += begun.elapsed();
    }

    /// Whether others wanted the core in the last window.
    pub(crate) fn is_there(&mut self, now: Instant) -> bool {
        let window = now - self.begun;
        if window >= WINDOW {
            let computed = computed();
            let taken = window.saturating_sub(self.slept).saturating_sub(computed - self.computed);
            *self = Self { begun: now, computed, slept: Duration::ZERO, found: taken > window / TAKEN };
        }
        self.found
    }
}

/// What this thread has computed since it began.
fn computed() -> Duration {
    // The kernel gives no negative times here.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes until so much time has gone.
    fn compute(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn wanted_sleep_is_no_contention() {
        let mut contention = Contention::new();
        contention.sleep(|| std::thread::sleep(4 * WINDOW));
        // On a machine that is very busy, others may have had the core after the sleep: not for half of such a time.
        assert!(!contention.is_there(Instant::now()));
    }

    #[test]
    fn time_that_others_had_is_contention_until_they_are_gone() {
        let mut contention = Contention::new();
        // To this thread, a sleep that it does not tell of is what others' work is.
        std::thread::sleep(4 * WINDOW);
        assert!(contention.is_there(Instant::now()));
        assert!(contention.is_there(Instant::now()), "until the next window is over");
        // Windows without any others come again, however busy the machine is.
        let calm = (0..1000).any(|_| {
            compute(WINDOW);
            !contention.is_there(Instant::now())
        });
        assert!(calm);
    }
}
