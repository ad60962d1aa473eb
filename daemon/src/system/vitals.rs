//! Whether the daemon gets on with its work: what feeds the watchdog, and what earns more time to start.

use std::time::Duration;

/// Time of the processor, in ticks of the clock, without which nothing was computed: what the daemon takes beside its work is less.
const LEAST_TICKS: u64 = 5;

/// The engine at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// How often its loop went round.
    pub(super) rounds: u64,
    /// Its thread waits for somebody.
    pub(super) rests: bool,
    /// Somebody waits whom it could take in.
    pub(super) wanted: bool,
    /// How long its step in progress takes already.
    pub(super) step: Option<Duration>,
}

/// Tells an engine that is stuck from one that is idle or takes its time.
#[derive(Debug)]
pub(super) struct Vitals {
    rounds: Option<u64>,
    longest: Duration,
}

impl Vitals {
    /// `longest`: what one step may take.
    pub(super) fn new(longest: Duration) -> Self {
        Self { rounds: None, longest }
    }

    /// Whether the engine got on since the last look, has nothing to do, or is in a step that may take as long.
    pub(super) fn lives(&mut self, look: Look) -> bool {
        let went_on = self.rounds.replace(look.rounds) != Some(look.rounds);
        let idle = look.rests && !look.wanted;
        went_on || idle || look.step.is_some_and(|took| took <= self.longest)
    }
}

/// What this process computed and read until now.
#[derive(Debug, Default)]
pub(super) struct Work {
    ticks: u64,
    read: u64,
}

impl Work {
    /// Whether it did anything to speak of since the last call.
    pub(super) fn went_on(&mut self) -> bool {
        let Ok(me) = procfs::process::Process::myself() else { return false };
        let ticks = me.stat().map_or(self.ticks, |stat| stat.utime + stat.stime);
        let read = me.io().map_or(self.read, |io| io.read_bytes);
        let went_on = ticks.saturating_sub(self.ticks) >= LEAST_TICKS || read > self.read;
        (self.ticks, self.read) = (ticks, read);
        went_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn a_stuck_engine_is_told_from_an_idle_one_and_a_slow_one() {
        let look = Look { rounds: 7, rests: false, wanted: false, step: None };
        let mut vitals = Vitals::new(LONGEST);
        assert!(vitals.lives(look), "the first look tells nothing");
        assert!(!vitals.lives(look), "busy and no further");
        assert!(vitals.lives(Look { rounds: 8, ..look }));
        let again = Look { rounds: 8, ..look };
        assert!(vitals.lives(Look { rests: true, ..again }), "idle");
        assert!(!vitals.lives(Look { rests: true, wanted: true, ..again }), "somebody waits and it sleeps");
        assert!(vitals.lives(Look { step: Some(LONGEST), ..again }), "a slow prefill");
        assert!(!vitals.lives(Look { step: Some(LONGEST * 2), ..again }));
    }

    #[test]
    fn computing_is_work() {
        let mut work = Work::default();
        work.went_on();
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(400) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(work.went_on());
    }
}
