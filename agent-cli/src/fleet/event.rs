//! What a rollout tells as it goes: to bars, lines or programs. The JSON form of these is documented in
//! `docs/fleet.md` and stays as it is.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::plan::{Planned, Served};
use crate::exit::Failure;

/// Why something is as it is: a word for programs, words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    /// The daemon's stable reason in lower case, or one of ours.
    pub(crate) cause: String,
    /// What happened.
    pub(crate) words: String,
}

impl Reason {
    /// Of a cause and words.
    pub(crate) fn new(cause: impl Into<String>, words: impl Into<String>) -> Self {
        Self { cause: cause.into(), words: words.into() }
    }
}

/// How far a device is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its turn has not come, or the rollout ended before it did.
    Waiting,
    /// It gets what it lacks.
    Sending,
    /// It verifies and tests the model, and switches.
    Activating,
    /// It serves the model and is watched.
    Watched,
    /// It served the model already, and that has proved itself there.
    Kept,
    /// It serves the model, and served it well for as long as it was watched.
    Proved,
    /// It serves the model; the rollout ended before it was watched to the end.
    Unproved,
    /// It could not take the model, for a reason of its own.
    Skipped,
    /// It failed with the model.
    Failed,
    /// It serves the model before again, because the rollout failed.
    RolledBack,
}

impl State {
    /// In a word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Activating => "activating",
            Self::Watched => "watched",
            Self::Kept => "had it",
            Self::Proved => "done",
            Self::Unproved => "unproved",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::RolledBack => "rolled back",
        }
    }

    /// Nothing more happens to it in this run.
    pub(crate) fn is_end(self) -> bool {
        !matches!(self, Self::Waiting | Self::Sending | Self::Activating | Self::Watched)
    }
}

/// A device in the plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DevicePlan {
    /// Its name.
    pub(crate) device: String,
    /// Where it is.
    pub(crate) address: String,
    /// What it lacks; null where it could not be asked.
    #[serde(flatten)]
    pub(crate) planned: Option<Planned>,
    /// Why it will be skipped; null where it will not.
    pub(crate) skipped: Option<Reason>,
}

/// A device in the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeviceReport {
    /// Its name.
    pub(crate) device: String,
    /// How it ended.
    pub(crate) state: State,
    /// Bytes that were sent to it in this run.
    pub(crate) sent: u64,
    /// What it serves, as far as it was heard of; null where it serves nothing, or is out of reach.
    pub(crate) serves: Option<Served>,
    /// Why it ended so; null where all is well.
    pub(crate) reason: Option<Reason>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Every device serves the model.
    Done,
    /// Some do not.
    Partly,
    /// The gate stopped it.
    Stopped,
    /// Ctrl-C.
    Interrupted,
    /// Nothing was to be changed.
    DryRun,
}

/// Something that happened. In JSON one object on a line, with its name in `event`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The devices are asked what they lack.
    Begun {
        /// The model's name.
        model: String,
        /// Its digest.
        bundle: String,
        /// How many devices.
        devices: usize,
    },
    /// What is going to happen.
    Plan {
        /// The model's name.
        model: String,
        /// Its digest.
        bundle: String,
        /// Of all its blobs.
        bytes: u64,
        /// What the seconds are counted with.
        rate: String,
        /// Nobody limited the rate: it is a guess.
        rate_assumed: bool,
        /// How many devices will have been tried after each wave.
        waves: Vec<usize>,
        /// In the order in which their turn comes.
        devices: Vec<DevicePlan>,
    },
    /// A wave begins, or goes on with others because devices of it were skipped.
    WaveStarted {
        /// From 1 on.
        wave: usize,
        /// All waves.
        of: usize,
        /// Whose turn it is.
        devices: Vec<String>,
    },
    /// A device is in another state.
    DeviceState {
        /// Its name.
        device: String,
        /// How far it is.
        state: State,
        /// Bytes to send, in the state `sending`.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Why, where there is something to say.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// Bytes left for a device; told a few times a second at most, and at the end of each transfer.
    Transferred {
        /// Its name.
        device: String,
        /// Since the transfer began.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// The link to a device was lost, and is made again.
    Retry {
        /// Its name.
        device: String,
        /// When.
        seconds: f64,
        /// What was wrong.
        reason: Reason,
    },
    /// A wave is over.
    Gate {
        /// Which.
        wave: usize,
        /// Whether the next one may begin.
        open: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Devices that proved the model so far.
        proved: usize,
        /// Devices that failed with it.
        failed: usize,
        /// Devices that could not take it.
        skipped: usize,
    },
    /// Nothing more happens.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
    /// What is where. The last event.
    Report {
        /// The model's name.
        model: String,
        /// Its digest.
        bundle: String,
        /// How it ended.
        outcome: Outcome,
        /// Every device that was selected.
        devices: Vec<DeviceReport>,
        /// What to do next.
        next: String,
    },
}

/// Somebody who is told.
pub(crate) trait View: Send {
    /// Shows what happened. Fails where it cannot be written.
    fn show(&mut self, event: &Event) -> Result<(), Failure>;
}

/// Tells a view, from wherever something happens. What cannot be written does not end a rollout halfway: it is said at the end.
pub(crate) struct Teller(Mutex<Told>);

struct Told {
    view: Box<dyn View>,
    /// Why something was not written, the first time.
    failure: Option<Failure>,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

impl Teller {
    /// Tells this view.
    pub(crate) fn new(view: Box<dyn View>) -> Self {
        Self(Mutex::new(Told { view, failure: None }))
    }

    /// Tells it.
    pub(crate) fn tell(&self, event: &Event) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = told.view.show(event);
        told.failure = told.failure.take().or(shown.err());
    }

    /// Whether everything was written.
    ///
    /// # Errors
    /// Something was not.
    pub(crate) fn written(&self) -> Result<(), Failure> {
        match &self.0.lock().unwrap_or_else(PoisonError::into_inner).failure {
            None => Ok(()),
            Some(failure) => Err(failure.clone()),
        }
    }

    /// Tells of a device's state.
    pub(crate) fn state(&self, device: &str, state: State, bytes: Option<u64>, reason: Option<Reason>) {
        self.tell(&Event::DeviceState { device: device.to_owned(), state, bytes, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_is_said_at_the_end() {
        struct Full(usize);
        impl View for Full {
            fn show(&mut self, _: &Event) -> Result<(), Failure> {
                self.0 += 1;
                if self.0 == 2 { Err(Failure::Failed("the disk is full".to_owned())) } else { Ok(()) }
            }
        }
        let teller = Teller::new(Box::new(Full(0)));
        let told = || teller.tell(&Event::Finished { outcome: Outcome::Done });
        told();
        assert_eq!(teller.written(), Ok(()));
        told();
        told();
        assert_eq!(teller.written(), Err(Failure::Failed("the disk is full".to_owned())));
    }
}
