//! One device's way to the model: it gets what it lacks, switches, and is watched. Lost links are made again, and everything
//! that waits has a bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recurve_proto::reason;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::event::{Event, Reason, State, Teller};
use super::gate::{Fault, Snapshot};
use super::halt::Halt;
use super::look::{self, Unproved};
use super::plan;
use super::source::Source;
use super::transfer::Transfers;
use crate::client::models::Operator;
use crate::client::trust::Truster;
use crate::exit::Failure;
use crate::status::Trouble;
use crate::target::Address;

/// How long a device may verify, load and test a model. Its connection gives signs of life meanwhile.
const ACTIVATED: Duration = Duration::from_secs(15 * 60);
/// The first pause before a lost link is made again; each further one is twice as long, up to a bound.
const BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// How often it is told how many bytes left.
const TOLD: Duration = Duration::from_millis(200);

/// What all devices of a rollout have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The model.
    pub(crate) source: Source,
    /// How it travels.
    pub(crate) transfers: Transfers,
    /// Devices that are sent to, or switch, at once.
    pub(crate) parallel: Semaphore,
    /// How long a device is watched.
    pub(crate) soak: Duration,
    /// How long it may be silent.
    pub(crate) patience: Duration,
    /// How often a lost link is made again that brings nothing forward.
    pub(crate) retries: u32,
    /// What stops it all.
    pub(crate) halt: Halt,
    /// Who is told.
    pub(crate) teller: Teller,
}

/// How it went with a device.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) state: State,
    pub(super) reason: Option<Reason>,
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// The device was asked to switch, and another model was served before.
    pub(super) changed: bool,
}

/// A device on its way.
pub(super) struct Way {
    pub(super) common: Arc<Common>,
    pub(super) device: String,
    pub(super) address: Address,
    sent: Arc<AtomicU64>,
    changed: bool,
}

/// Where its way ended before it proved the model.
struct Stop(State, Option<Reason>);

impl Way {
    pub(super) fn new(common: Arc<Common>, device: String, address: Address) -> Self {
        Self { common, device, address, sent: Arc::default(), changed: false }
    }

    /// Goes the whole way.
    pub(super) async fn go(mut self) -> Ended {
        let (state, reason) = match self.steps().await {
            Ok(()) => (State::Proved, None),
            Err(Stop(state, reason)) => (state, reason),
        };
        self.common.teller.state(&self.device, state, None, reason.clone());
        Ended { state, reason, sent: self.sent.load(Ordering::Relaxed), changed: self.changed }
    }

    async fn steps(&mut self) -> Result<(), Stop> {
        let common = Arc::clone(&self.common);
        let waiting = || Stop(State::Waiting, None);
        let first = {
            let _place = self.unless_halted(common.parallel.acquire()).await?.map_err(|_| waiting())?;
            let (mut operator, before) = self.unless_halted(self.received()).await??;
            if common.halt.why().is_some() {
                return Err(waiting());
            }
            self.activate(&mut operator, &before).await?
        };
        common.teller.state(&self.device, State::Watched, None, None);
        let watching = look::watch(&self.address, &first, &common.source.bundle, common.soak, common.patience);
        tokio::select! {
            watched = watching => watched.map_err(failed),
            () = common.halt.come() => Err(Stop(State::Unproved, None)),
        }
    }

    /// Does what can be broken off at any time.
    async fn unless_halted<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.common.halt.come() => Err(Stop(State::Waiting, None)),
            done = work => Ok(done),
        }
    }

    /// The device has the whole model; gives the connection, and how the device was.
    async fn received(&self) -> Result<(Operator, Snapshot), Stop> {
        let mut tries = Tries::new(self.common.retries);
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            let lost = match self.receive().await {
                Ok(received) => return Ok(received),
                Err(Attempt::Stop(stop)) => return Err(stop),
                Err(Attempt::Trouble(trouble)) => trouble,
            };
            let forward = self.sent.load(Ordering::Relaxed) > before;
            match tries.again(&lost, forward) {
                Some(pause) => self.retry(&lost, pause).await,
                None => return Err(refused(&lost)),
            }
        }
    }

    async fn receive(&self) -> Result<(Operator, Snapshot), Attempt> {
        let Common { source, transfers, patience, teller, .. } = &*self.common;
        let mut operator = Operator::at(&self.address, *patience).await?;
        let before = look::once(&mut operator).await?;
        let answer = operator.plan(source.manifest.clone(), source.info.clone()).await?;
        if let Some(reason) = plan::obstacle(&answer) {
            return Err(Attempt::Stop(Stop(State::Skipped, Some(reason))));
        }
        // Whose signatures are believed is known before a byte of the model travels.
        let delivered = Truster::of(&operator).deliver(source.signatures.as_ref()).await?;
        if let Some((reason, words)) = delivered.refusal(&source.bundle) {
            let refused = Trouble { reason: reason.to_owned(), ..Trouble::from(Failure::Failed(words)) };
            return Err(Attempt::Trouble(refused));
        }
        teller.state(&self.device, State::Sending, Some(answer.bytes), None);
        let (of, this, told) = (answer.bytes, AtomicU64::new(0), Mutex::new(None::<Instant>));
        let tell = |bytes| teller.tell(&Event::Transferred { device: self.device.clone(), bytes, of });
        let sent = |bytes: u64| {
            self.sent.fetch_add(bytes, Ordering::Relaxed);
            let so_far = this.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if so_far == of || told.is_none_or(|at| at.elapsed() >= TOLD) {
                *told = Some(Instant::now());
                tell(so_far);
            }
        };
        transfers.deliver(&mut operator, source, &answer, &sent).await?;
        Ok((operator, before))
    }

    /// The device switches. A link that is lost now is made again: the device goes on meanwhile, and an order for the model
    /// that is served already changes nothing.
    async fn activate(&mut self, operator: &mut Operator, before: &Snapshot) -> Result<Snapshot, Stop> {
        let bundle = self.common.source.bundle.clone();
        self.common.teller.state(&self.device, State::Activating, None, None);
        let mut tries = Tries::new(self.common.retries);
        loop {
            let Err(trouble) = self.order(operator, before, &bundle).await else {
                // A model counts its requests from when it is served.
                let failed = if before.bundle.as_deref() == Some(&bundle) { before.failed } else { 0 };
                return Ok(Snapshot { failed, ..before.clone() });
            };
            let Some(pause) = tries.again(&trouble, false) else {
                return Err(if trouble.lost { lost(&trouble) } else { refused(&trouble) });
            };
            self.retry(&trouble, pause).await;
            match Operator::at(&self.address, self.common.patience).await {
                Ok(again) => *operator = again,
                Err(trouble) if trouble.lost => {}
                Err(trouble) => return Err(refused(&trouble)),
            }
            // It may have gone back by itself meanwhile: it is not asked for the same again then.
            if let Ok(now) = look::once(operator).await
                && let Some(why) = now.failure(&bundle).filter(|why| before.failure(&bundle) != Some(why))
            {
                return Err(failed(Unproved::Fault(Fault::WentBack, format!("the device went back by itself: {why}"))));
            }
        }
    }

    async fn order(&mut self, operator: &mut Operator, before: &Snapshot, bundle: &str) -> Result<(), Trouble> {
        self.changed |= before.bundle.as_deref() != Some(bundle);
        match timeout(ACTIVATED, operator.activate(bundle.to_owned(), |_| Ok(()))).await {
            Ok(active) => active.map(drop),
            Err(_) => {
                let words = format!("it did not say within {ACTIVATED:?} what became of the model");
                Err(Trouble::lost(&self.address.target, words))
            }
        }
    }

    async fn retry(&self, trouble: &Trouble, pause: Duration) {
        let reason = cause_of(trouble, "unreachable");
        let seconds = pause.as_secs_f64();
        self.common.teller.tell(&Event::Retry { device: self.device.clone(), seconds, reason });
        sleep(pause).await;
    }
}

enum Attempt {
    Stop(Stop),
    Trouble(Trouble),
}

impl From<Trouble> for Attempt {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// How often a lost link is made again.
#[derive(Debug)]
struct Tries {
    most: u32,
    used: u32,
}

impl Tries {
    fn new(most: u32) -> Self {
        Self { most, used: 0 }
    }

    /// After which pause to try again, if at all. Whatever brings the transfer forward makes up for what was tried before.
    fn again(&mut self, trouble: &Trouble, forward: bool) -> Option<Duration> {
        let passing = [
            reason::UPLOAD_INTERRUPTED,
            reason::WRONG_OFFSET,
            reason::LOADING,
            reason::SHUTTING_DOWN,
            reason::REGISTRY_UNREACHABLE,
            reason::PULLS_FULL,
        ];
        if !(trouble.lost || passing.contains(&trouble.reason.as_str())) {
            return None;
        }
        if forward {
            self.used = 0;
        }
        let pause = BACKOFF.saturating_mul(1 << self.used.min(10)).min(LONGEST_BACKOFF);
        self.used += 1;
        (self.used <= self.most).then_some(pause)
    }
}

/// The reason in a device's answer, or `otherwise` where it gave none.
pub(super) fn cause_of(trouble: &Trouble, otherwise: &str) -> Reason {
    let cause = match (trouble.reason.as_str(), &trouble.failure) {
        ("", Failure::Busy(_)) => "busy".to_owned(),
        ("", _) => otherwise.to_owned(),
        (reason, _) => reason.to_lowercase(),
    };
    Reason::new(cause, trouble.words.clone())
}

/// A device that did not take the model: skipped where the reason is its own, failed where it is the model.
fn refused(trouble: &Trouble) -> Stop {
    let own = [
        reason::NO_ROOM,
        reason::NO_MEMORY,
        reason::UPLOAD_INTERRUPTED,
        reason::WRONG_OFFSET,
        reason::LOADING,
        reason::SHUTTING_DOWN,
        reason::STORE_FAILED,
        reason::NOT_ALLOWED,
        reason::NOT_MANAGED,
        // Whose models it believes is its own decision.
        reason::NOT_SIGNED,
        reason::NO_TRUST_ROOT,
        reason::TRUST_INSTALLED,
        reason::TRUST_EXPIRED,
        reason::TRUST_ROLLED_BACK,
        reason::TRUST_MIXED,
        reason::TRUST_TOO_LARGE,
        reason::TRUST_INVALID,
        reason::CLOCK_BEHIND,
        reason::REGISTRY_UNREACHABLE,
        reason::REGISTRY_REFUSED,
        reason::REGISTRY_SETTINGS,
        reason::PULLS_FULL,
    ];
    let busy = matches!(trouble.failure, Failure::Busy(_));
    if trouble.lost || busy || own.contains(&trouble.reason.as_str()) {
        Stop(State::Skipped, Some(cause_of(trouble, "unreachable")))
    } else {
        Stop(State::Failed, Some(cause_of(trouble, "refused")))
    }
}

/// A device that was asked to switch and was not heard of again.
fn lost(trouble: &Trouble) -> Stop {
    Stop(State::Failed, Some(Reason { cause: "lost".to_owned(), ..cause_of(trouble, "lost") }))
}

fn failed(unproved: Unproved) -> Stop {
    let (cause, words) = match unproved {
        Unproved::Lost(words) => ("lost", words),
        Unproved::Fault(fault, words) => (fault.cause(), words),
    };
    Stop(State::Failed, Some(Reason::new(cause, words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(reason: &str, lost: bool) -> Trouble {
        Trouble { reason: reason.to_owned(), lost, ..Trouble::from(Failure::Failed("gw-1 refused".to_owned())) }
    }

    #[test]
    fn reasons_of_the_device_skip_it_and_reasons_of_the_model_fail_it() {
        for (reason, lost, state, cause) in [
            ("", true, State::Skipped, "unreachable"),
            ("NO_ROOM", false, State::Skipped, "no_room"),
            ("NOT_ALLOWED", false, State::Skipped, "not_allowed"),
            ("NO_TRUST_ROOT", false, State::Skipped, "no_trust_root"),
            ("NOT_SIGNED", false, State::Skipped, "not_signed"),
            ("TRUST_INSTALLED", false, State::Skipped, "trust_installed"),
            ("TRUST_EXPIRED", false, State::Skipped, "trust_expired"),
            ("TRUST_ROLLED_BACK", false, State::Skipped, "trust_rolled_back"),
            ("TRUST_MIXED", false, State::Skipped, "trust_mixed"),
            ("TRUST_TOO_LARGE", false, State::Skipped, "trust_too_large"),
            ("TRUST_INVALID", false, State::Skipped, "trust_invalid"),
            ("CLOCK_BEHIND", false, State::Skipped, "clock_behind"),
            ("REGISTRY_UNREACHABLE", false, State::Skipped, "registry_unreachable"),
            ("REGISTRY_NOT_FOUND", false, State::Failed, "registry_not_found"),
            ("UPLOAD_INTERRUPTED", false, State::Skipped, "upload_interrupted"),
            ("GOLDEN_TEST_FAILED", false, State::Failed, "golden_test_failed"),
            ("MODEL_UNUSABLE", false, State::Failed, "model_unusable"),
            ("A_REASON_TO_COME", false, State::Failed, "a_reason_to_come"),
            ("", false, State::Failed, "refused"),
        ] {
            let Stop(found, reason) = refused(&trouble(reason, lost));
            assert_eq!((found, reason.unwrap().cause.as_str()), (state, cause));
        }
        let busy = Trouble { failure: Failure::Busy("x".to_owned()), ..trouble("", false) };
        assert_eq!(refused(&busy).1.unwrap().cause, "busy");
    }

    #[test]
    fn lost_links_are_made_again_within_a_bound_and_longer_where_bytes_arrive() {
        let lost = trouble("", true);
        let mut tries = Tries::new(3);
        let pauses: Vec<_> = (0..4).map(|_| tries.again(&lost, false).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), None]);
        assert_eq!(tries.again(&lost, true).map(|pause| pause.as_secs()), Some(1), "forward");
        assert_eq!(Tries::new(3).again(&trouble("NO_ROOM", false), false), None, "it would be refused again");
        assert_eq!(Tries::new(0).again(&lost, true), None);
        let mut many = Tries::new(40);
        assert!((0..40).all(|_| many.again(&lost, false).is_some_and(|pause| pause <= LONGEST_BACKOFF)));
    }
}
