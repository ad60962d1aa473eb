//! A rollout: plan, wave after wave with a gate behind each, and a report of what is where.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ask::ask_all;
use super::device::{Common, Way, cause_of};
use super::entry::Entry;
use super::event::{DeviceReport, Event, Outcome, Reason, State};
use super::gate::{self, Counts, Snapshot};
use super::halt::Why;
use super::next::next;
use super::plan::{self, Planned};
use super::rate::Rate;
use super::wave::{self, Share, Waves};
use super::{look, undo};
use crate::client::models::Operator;
use crate::exit::Failure;
use crate::status::Trouble;
use crate::target::Address;

/// How long a device may be silent that is only asked for the plan, or before a gate.
const SURVEY: Duration = Duration::from_secs(10);
/// How long a device may be silent that is only asked for the report.
const GLANCE: Duration = Duration::from_secs(5);
/// Before a device that could not be reached for the plan is called once more.
const AGAIN: Duration = Duration::from_secs(1);

/// How a rollout goes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Its waves.
    pub(crate) waves: Waves,
    /// How many devices may fail.
    pub(crate) max_failures: Share,
    /// Whether the devices that it changed go back when it is stopped.
    pub(crate) roll_back: bool,
    /// Only the plan is wanted.
    pub(crate) dry_run: bool,
    /// A device that went back from the model by itself before is not tried again.
    pub(crate) resume: bool,
    /// What the plan counts with.
    pub(crate) rate: Option<Rate>,
}

struct Rollout {
    common: Arc<Common>,
    settings: Settings,
    /// In the order in which their turn comes.
    entries: Vec<Entry>,
}

/// Does it all; fails where not every device serves the model at the end.
pub(crate) async fn run(
    common: Arc<Common>,
    devices: Vec<(String, Address)>,
    settings: Settings,
) -> Result<(), Failure> {
    let entries = devices.into_iter().map(|(device, address)| Entry::new(device, address)).collect();
    let mut rollout = Rollout { common, settings, entries };
    rollout.plan().await;
    let mut outcome = match rollout.common.halt.why() {
        Some(_) => Outcome::Interrupted,
        None if rollout.settings.dry_run => Outcome::DryRun,
        None => rollout.waves().await,
    };
    if outcome == Outcome::Stopped && rollout.settings.roll_back {
        rollout.go_back().await;
    }
    if outcome != Outcome::DryRun {
        rollout.look_around().await;
    }
    if outcome == Outcome::Done && rollout.done() < rollout.entries.len() {
        outcome = Outcome::Partly;
    }
    rollout.end(outcome)
}

impl Rollout {
    fn is(&self, state: State) -> usize {
        self.entries.iter().filter(|entry| entry.state() == state).count()
    }

    fn done(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_done()).count()
    }

    /// Asks every device, and tells what is going to happen.
    async fn plan(&mut self) {
        let rate = plan::rate(self.settings.rate);
        let source = &self.common.source;
        let (model, bundle) = (source.name.clone(), source.bundle.clone());
        self.common.teller.tell(&Event::Begun { model, bundle, devices: self.entries.len() });
        let common = Arc::clone(&self.common);
        let answers = self.ask(|_| true, move |address| survey(Arc::clone(&common), address, rate.0)).await;
        for (place, answer) in answers {
            let entry = &mut self.entries[place];
            match answer {
                Err(reason) => entry.end(State::Skipped, Some(reason)),
                Ok((planned, obstacle)) => {
                    entry.serves = planned.serves.clone();
                    match (&planned.went_back, obstacle) {
                        (_, Some(reason)) => entry.end(State::Skipped, Some(reason)),
                        (Some(why), None) if self.settings.resume => {
                            let words = format!("it went back from this model by itself before: {why}");
                            entry.end(State::Failed, Some(Reason::new("went_back", words)));
                        }
                        _ if planned.confirmed => entry.end(State::Kept, None),
                        _ => {}
                    }
                    entry.planned = Some(planned);
                }
            }
        }
        let source = &self.common.source;
        self.common.teller.tell(&Event::Plan {
            model: source.name.clone(),
            bundle: source.bundle.clone(),
            bytes: source.bytes,
            rate: rate.0.to_string(),
            rate_assumed: rate.1,
            waves: self.settings.waves.targets(self.entries.len()),
            devices: self.entries.iter().map(Entry::plan).collect(),
        });
    }

    /// Asks some of the devices something short; gives the answers by place.
    async fn ask<T, F>(&self, whom: impl Fn(&Entry) -> bool, what: impl Fn(Address) -> F) -> Vec<(usize, T)>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let asked = self.entries.iter().enumerate().filter(|(_, entry)| whom(entry));
        ask_all(asked.map(|(place, entry)| (place, entry.address.clone())), what).await
    }

    async fn waves(&mut self) -> Outcome {
        let targets = self.settings.waves.targets(self.entries.len());
        for (number, target) in (1..).zip(&targets) {
            loop {
                let standings: Vec<_> = self.entries.iter().map(Entry::standing).collect();
                let places = wave::next(&standings, *target);
                if places.is_empty() || self.common.halt.why().is_some() {
                    break;
                }
                self.common.teller.tell(&Event::WaveStarted {
                    wave: number,
                    of: targets.len(),
                    devices: places.iter().map(|place| self.entries[*place].device.clone()).collect(),
                });
                self.batch(places).await;
            }
            let left = self.is(State::Waiting);
            if left > 0 {
                self.look_back().await;
            }
            if self.common.halt.why() == Some(Why::Interrupted) {
                return Outcome::Interrupted;
            }
            let counts = self.counts();
            let closed = gate::closed(counts, self.settings.max_failures, self.entries.len(), left);
            self.common.teller.tell(&Event::Gate {
                wave: number,
                open: closed.is_none(),
                reason: closed.clone(),
                proved: counts.proved,
                failed: counts.failed,
                skipped: self.is(State::Skipped),
            });
            if closed.is_some() {
                return Outcome::Stopped;
            }
            // Devices that took the places of skipped ones are missing in the waves to come.
            if left == 0 {
                break;
            }
        }
        if self.done() == self.entries.len() { Outcome::Done } else { Outcome::Partly }
    }

    fn counts(&self) -> Counts {
        Counts { proved: self.done(), failed: self.is(State::Failed) }
    }

    /// Some devices go their whole way at once; too many failures stop those that have not begun to switch.
    async fn batch(&mut self, places: Vec<usize>) {
        let mut ways = JoinSet::new();
        for &place in &places {
            let Entry { device, address, .. } = &self.entries[place];
            let way = Way::new(Arc::clone(&self.common), device.clone(), address.clone());
            ways.spawn(async move { (place, way.go().await) });
        }
        while let Some(joined) = ways.join_next().await {
            // One that panicked is seen to below.
            let Ok((place, ended)) = joined else { continue };
            self.entries[place].ended = Some(ended);
            let failed = self.is(State::Failed);
            if gate::too_many(failed, self.settings.max_failures, self.entries.len()).is_some() {
                self.common.halt.now(Why::TooMany);
            }
        }
        for place in places {
            let panicked = || Reason::new("internal", "this program failed at it");
            if self.entries[place].ended.is_none() {
                self.entries[place].end(State::Failed, Some(panicked()));
            }
        }
    }

    /// The devices that this run changed serve the model before again.
    async fn go_back(&mut self) {
        let (patience, bundle) = (self.common.patience, self.common.source.bundle.clone());
        let changed = |entry: &Entry| entry.ended.as_ref().is_some_and(|ended| ended.changed);
        let back = move |address: Address| {
            let bundle = bundle.clone();
            async move { undo::back(&address, patience, Some(&bundle)).await }
        };
        for (place, went) in self.ask(changed, back).await {
            let entry = &mut self.entries[place];
            let Some(ended) = &mut entry.ended else { continue };
            match went {
                Ok(serves) => {
                    entry.serves = serves;
                    // Why it failed stays in the report.
                    if ended.state != State::Failed {
                        ended.state = State::RolledBack;
                    }
                }
                Err(why) => {
                    let words = format!("it could not be rolled back: {}", why.words);
                    ended.reason.get_or_insert_with(|| Reason::new(why.cause, words));
                }
            }
            self.common.teller.state(&entry.device, ended.state, None, ended.reason.clone());
        }
    }

    /// Before a gate: devices that proved the model may have lost it since. Who does not answer now does not count; a rollout
    /// that is halted does not wait for any.
    async fn look_back(&mut self) {
        let (common, patience) = (Arc::clone(&self.common), self.common.patience.min(SURVEY));
        let look = move |address: Address| {
            let common = Arc::clone(&common);
            async move {
                tokio::select! {
                    seen = look::settled(&address, &common.source.bundle, patience) => seen.ok(),
                    () = common.halt.come() => None,
                }
            }
        };
        for (place, seen) in self.ask(Entry::is_done, look).await {
            if let Some(now) = seen {
                self.seen(place, &now);
            }
        }
    }

    /// For the report: what the devices serve now.
    async fn look_around(&mut self) {
        let (common, patience) = (Arc::clone(&self.common), self.common.patience.min(GLANCE));
        let look = move |address: Address| {
            let common = Arc::clone(&common);
            async move { look::settled(&address, &common.source.bundle, patience).await }
        };
        let mut answers = self.ask(Entry::is_done, look).await;
        let glance = move |address: Address| async move { look::glance(&address, patience).await };
        answers.extend(self.ask(|entry| !entry.is_done(), glance).await);
        for (place, seen) in answers {
            match seen {
                Ok(now) => self.seen(place, &now),
                Err(trouble) => self.entries[place].silent(cause_of(&trouble, "unreachable")),
            }
        }
    }

    fn seen(&mut self, place: usize, now: &Snapshot) {
        let entry = &mut self.entries[place];
        if entry.seen(now, &self.common.source.bundle) {
            self.common.teller.state(&entry.device, entry.state(), None, entry.reason());
        }
    }

    fn end(&self, outcome: Outcome) -> Result<(), Failure> {
        let (teller, source) = (&self.common.teller, &self.common.source);
        teller.tell(&Event::Finished { outcome });
        let (all, done) = (self.entries.len(), self.done());
        if outcome == Outcome::DryRun {
            return match self.is(State::Skipped) + self.is(State::Failed) {
                0 => Ok(()),
                cannot => Err(Failure::Partly(format!("{cannot} of {all} devices could not take {}", source.name))),
            };
        }
        let devices: Vec<DeviceReport> = self.entries.iter().map(Entry::report).collect();
        teller.tell(&Event::Report {
            model: source.name.clone(),
            bundle: source.bundle.clone(),
            outcome,
            next: next(outcome, self.settings.roll_back, &devices),
            devices,
        });
        let (failed, skipped) = (self.is(State::Failed), self.is(State::Skipped));
        let words = format!("{done} of {all} devices serve {}; {failed} failed, {skipped} skipped", source.name);
        match outcome {
            Outcome::Done | Outcome::DryRun => Ok(()),
            Outcome::Partly => Err(Failure::Partly(words)),
            Outcome::Stopped => Err(Failure::Stopped(format!("stopped: {words}"))),
            Outcome::Interrupted => Err(Failure::Interrupted),
        }
    }
}

/// What a device says to the plan. Whoever does not answer is called once more.
async fn survey(common: Arc<Common>, address: Address, rate: Rate) -> Result<(Planned, Option<Reason>), Reason> {
    let once = || async {
        let mut operator = Operator::at(&address, common.patience.min(SURVEY)).await?;
        let now = look::once(&mut operator).await?;
        let answer = operator.plan(common.source.manifest.clone(), common.source.info.clone()).await?;
        Ok::<_, Trouble>((plan::planned(&answer, &now, &common.source.bundle, rate), plan::obstacle(&answer)))
    };
    let asked = async {
        match once().await {
            Err(trouble) if trouble.lost => {
                sleep(AGAIN).await;
                once().await
            }
            answer => answer,
        }
    };
    tokio::select! {
        answer = asked => answer.map_err(|trouble| cause_of(&trouble, if trouble.lost { "unreachable" } else { "refused" })),
        () = common.halt.come() => Err(Reason::new("interrupted", "it was not asked: the rollout was interrupted")),
    }
}
