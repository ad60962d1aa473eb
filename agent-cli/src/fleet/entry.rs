//! A device of a rollout, and what is known of it so far.

use super::device::Ended;
use super::event::{DevicePlan, DeviceReport, Reason, State};
use super::gate::{self, Snapshot};
use super::plan::{Planned, Served};
use super::wave::Standing;
use crate::target::Address;

/// A device of the rollout.
pub(super) struct Entry {
    pub(super) device: String,
    pub(super) address: Address,
    pub(super) planned: Option<Planned>,
    /// How it ended, once it did.
    pub(super) ended: Option<Ended>,
    pub(super) serves: Option<Served>,
}

impl Entry {
    pub(super) fn new(device: String, address: Address) -> Self {
        Self { device, address, planned: None, ended: None, serves: None }
    }

    pub(super) fn state(&self) -> State {
        self.ended.as_ref().map_or(State::Waiting, |ended| ended.state)
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        self.ended.as_ref().and_then(|ended| ended.reason.clone())
    }

    pub(super) fn end(&mut self, state: State, reason: Option<Reason>) {
        self.ended = Some(Ended { state, reason, sent: 0, changed: false });
    }

    /// It proved the model, in this run or before.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state(), State::Proved | State::Kept)
    }

    pub(super) fn standing(&self) -> Standing {
        match self.state() {
            State::Skipped => Standing::Skipped,
            state if state.is_end() => Standing::Tried,
            _ => Standing::Open,
        }
    }

    /// It was seen after its end: gives whether it has failed by that, because it proved the model and does not serve it any
    /// more.
    pub(super) fn seen(&mut self, now: &Snapshot, bundle: &str) -> bool {
        self.serves = Served::of(now).filter(|_| now.serving != Some(false));
        let done = self.is_done();
        let (Some(ended), true, Err((fault, words))) = (&mut self.ended, done, gate::serves_on(now, bundle)) else {
            return false;
        };
        ended.state = State::Failed;
        ended.reason = Some(Reason::new(fault.cause(), words));
        true
    }

    /// Nothing was heard of it for the report. What it proved, it proved.
    pub(super) fn silent(&mut self, why: Reason) {
        // What it was brought back to a moment ago is known.
        if self.state() != State::RolledBack {
            self.serves = None;
        }
        let done = self.is_done();
        if let (Some(ended), true) = (&mut self.ended, done) {
            ended.reason = Some(Reason { words: format!("it does not answer now: {}", why.words), ..why });
        }
    }

    pub(super) fn plan(&self) -> DevicePlan {
        DevicePlan {
            device: self.device.clone(),
            address: self.address.target.to_string(),
            planned: self.planned.clone(),
            skipped: self.reason(),
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        DeviceReport {
            device: self.device.clone(),
            state: self.state(),
            sent: self.ended.as_ref().map_or(0, |ended| ended.sent),
            serves: self.serves.clone(),
            reason: self.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn entry(state: State) -> Entry {
        let target = Target::Unix("/run/x.sock".into());
        let mut entry = Entry::new("gw-1".to_owned(), Address { target, certificates: None });
        entry.end(state, None);
        entry
    }

    fn serving(bundle: &str) -> Snapshot {
        Snapshot { bundle: Some(bundle.to_owned()), serving: Some(true), ..Snapshot::default() }
    }

    #[test]
    fn who_proved_the_model_and_does_not_serve_it_any_more_has_failed() {
        let went_back = Snapshot { failures: vec![("new".to_owned(), "it hung".to_owned())], ..serving("old") };
        let halted = Snapshot { serving: Some(false), ..serving("new") };
        for (state, now, expected) in [
            (State::Proved, serving("new"), (State::Proved, None)),
            (State::Kept, serving("new"), (State::Kept, None)),
            (State::Proved, serving("old"), (State::Failed, Some("serves_another"))),
            (State::Kept, serving("old"), (State::Failed, Some("serves_another"))),
            (State::Proved, went_back.clone(), (State::Failed, Some("went_back"))),
            (State::Proved, Snapshot::default(), (State::Failed, Some("not_serving"))),
            (State::Proved, halted.clone(), (State::Failed, Some("not_serving"))),
            // Others are only told of.
            (State::Skipped, serving("old"), (State::Skipped, None)),
            (State::RolledBack, serving("old"), (State::RolledBack, None)),
            (State::Unproved, went_back, (State::Unproved, None)),
        ] {
            let mut entry = entry(state);
            let failed = entry.seen(&now, "new");
            let report = entry.report();
            let found = (report.state, report.reason.as_ref().map(|reason| reason.cause.as_str()));
            assert_eq!(found, expected, "{state:?} {now:?}");
            assert_eq!(failed, report.state == State::Failed);
            let serves = if now == halted { None } else { now.bundle };
            assert_eq!(report.serves.map(|serves| serves.bundle), serves, "what it really serves");
        }
    }

    #[test]
    fn who_does_not_answer_has_not_failed_and_nothing_is_said_of_what_it_serves() {
        let mut entry = entry(State::Proved);
        entry.seen(&serving("new"), "new");
        entry.silent(Reason::new("unreachable", "nothing listens there"));
        let report = entry.report();
        assert_eq!((report.state, report.serves), (State::Proved, None));
        assert_eq!(report.reason, Some(Reason::new("unreachable", "it does not answer now: nothing listens there")));
    }
}
