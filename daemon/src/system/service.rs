//! What systemd is told while the daemon runs as its service (sd_notify(3)): that it is ready, how it is in words, that it needs
//! more time to start, and that it lives. Where nobody listens, nothing is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::status::{Life, Snapshot};
use super::vitals::{Look, Vitals, Work};
use crate::node::{Node, Phase, Serving};

/// How often the line of words is made anew, at most.
const TICK: Duration = Duration::from_secs(1);
/// The watchdog is fed this many times within its period.
const FEEDINGS: u32 = 4;
/// How often more time to start is asked for,
const ASK: Duration = Duration::from_secs(5);
/// and how much, from then on.
const EXTENSION: Duration = Duration::from_secs(60);
/// What ending takes beside the grace period.
const ENDING: Duration = Duration::from_secs(15);

/// Tells systemd how the node is, as long as it lives.
#[derive(Debug)]
pub struct Service {
    _task: AbortOnDropHandle<()>,
}

impl Service {
    /// Begins to tell. `longest`: what one step of the engine may take; `grace`: what running requests have when the node stops;
    /// `stopping`: it was told to.
    pub fn start(node: &Arc<Node>, longest: Duration, grace: Duration, stopping: CancellationToken) -> Self {
        let teller = Teller {
            node: Arc::clone(node),
            grace,
            stopping,
            said: String::new(),
            served: None,
            vitals: Vitals::new(longest),
            work: Work::default(),
            loading: Work::default(),
            watchdog: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()),
        };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(teller.run())) }
    }
}

/// The node answers, or would if it had a model.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] ends it.
pub fn reloading() {
    // systemd wants to know when (systemd.service(5), Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Why the daemon ends by itself.
pub fn failed(reason: &str) {
    tell(&[NotifyState::Status(&one_line(reason))]);
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd cannot be told");
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

struct Teller {
    node: Arc<Node>,
    grace: Duration,
    stopping: CancellationToken,
    said: String,
    /// The last one, so that what is left of it is known while the node stops.
    served: Option<Serving>,
    vitals: Vitals,
    /// Until more time was asked for last,
    work: Work,
    /// and until the watchdog was fed last.
    loading: Work,
    watchdog: Option<Duration>,
}

impl Teller {
    async fn run(mut self) {
        let mut phases = self.node.phases();
        let feed = self.watchdog.map(|period| period / FEEDINGS);
        let mut ticks = interval(feed.map_or(TICK, |feed| feed.clamp(Duration::from_millis(1), TICK)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut asked, mut fed, mut stopping) = (Instant::now(), None::<Instant>, false);
        let mut since = Instant::now();
        loop {
            let phase = phases.borrow_and_update().clone();
            self.say(&phase);
            // Also while a model is being loaded, which cannot be broken off.
            let told = self.stopping.is_cancelled();
            if told && !std::mem::replace(&mut stopping, true) {
                let time = self.grace.saturating_add(ENDING);
                tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros(time))]);
            }
            if (told || matches!(phase, Phase::Loading)) && asked.elapsed() >= ASK {
                asked = Instant::now();
                // What hangs is ended by systemd when its time is over.
                if self.work.went_on() {
                    tell(&[NotifyState::ExtendTimeoutUsec(micros(EXTENSION))]);
                }
            }
            if let Some(feed) = feed
                && fed.is_none_or(|fed| fed.elapsed() >= feed)
            {
                fed = Some(Instant::now());
                if self.lives(&phase, since) {
                    tell(&[NotifyState::Watchdog]);
                }
            }
            tokio::select! {
                _ = ticks.tick() => {}
                changed = phases.changed() => {
                    since = Instant::now();
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.stopping.cancelled(), if !stopping => {}
            }
        }
    }

    /// Says how the node is, where that is something new.
    fn say(&mut self, phase: &Phase) {
        let line = self.snapshot(phase).line();
        if line != self.said {
            tell(&[NotifyState::Status(&one_line(&line))]);
            self.said = line;
        }
    }

    fn snapshot(&mut self, phase: &Phase) -> Snapshot {
        match phase {
            Phase::Serving(serving) => self.served = Some(serving.clone()),
            Phase::Empty => self.served = None,
            Phase::Loading | Phase::Switching | Phase::Stopping => {}
        }
        let streams = self.served.as_ref().map_or(0, |serving| serving.meter.active_rows());
        let life = match phase {
            Phase::Loading => Life::Starting,
            Phase::Empty => Life::Empty,
            Phase::Switching => Life::Switching,
            Phase::Stopping => Life::Stopping { streams },
            Phase::Serving(serving) => {
                let waiting = serving.admission.waiting();
                Life::Serving { model: serving.model.name.clone(), streams, waiting }
            }
        };
        Snapshot {
            life,
            loading: self.node.progress().now(),
            trouble: self.node.progress().trouble().map(|trouble| trouble.reason().to_owned()),
            draining: self.node.is_draining(),
            probation: self.node.probation().is_some(),
        }
    }

    /// Whether the node gets on, as far as this phase tells.
    fn lives(&mut self, phase: &Phase, since: Instant) -> bool {
        match phase {
            Phase::Serving(serving) => self.vitals.lives(Look {
                rounds: serving.meter.rounds(),
                rests: serving.meter.rests(),
                wanted: serving.admission.waiting() > 0 && serving.meter.active_rows() < serving.rows as u64,
                step: serving.terminator.running_for(),
            }),
            // One model ends within its grace; loading the other is work.
            Phase::Switching => self.loading.went_on() || since.elapsed() < self.grace + ENDING,
            // systemd does not watch a start, and gives an end its time.
            Phase::Loading | Phase::Empty | Phase::Stopping => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_line() {
        assert_eq!(one_line("1 problem:\n  listen = 3\n\nWATCHDOG=1\n"), "1 problem:; listen = 3; WATCHDOG=1");
    }
}
