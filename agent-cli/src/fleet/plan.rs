//! The plan: what a device lacks, how long it takes to get there, and whether it fits.

use indicatif::HumanBytes;
use recurve_proto::v1::PlanResponse;
use serde::Serialize;

use super::event::Reason;
use super::gate::Snapshot;
use super::rate::Rate;

/// What is assumed of a link whose rate nobody limited: 100 Mbit/s.
const ASSUMED: Rate = Rate::of(12.5e6);

/// What stands in the way of the model on a device, if anything does, and what it takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Planned {
    /// The model that it serves now.
    pub(crate) serves: Option<Served>,
    /// Bytes that travel.
    pub(crate) bytes: u64,
    /// How long that takes, alone, at the plan's rate.
    pub(crate) seconds: f64,
    /// Bytes of disk that are free for models.
    pub(crate) disk_free: u64,
    /// Bytes of memory that the model needs; null where the device does not say it.
    pub(crate) memory: Option<u64>,
    /// Bytes of memory that are available; null where the device does not say it.
    pub(crate) memory_free: Option<u64>,
    /// There is no memory for both models at once: the one that is served ends before this one is loaded.
    pub(crate) in_turn: bool,
    /// It serves the model already, and that has proved itself there.
    pub(crate) confirmed: bool,
    /// Why it went back from this very model by itself before.
    pub(crate) went_back: Option<String>,
}

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Served {
    /// Its name; empty where the device does not know it.
    pub(crate) model: String,
    /// Its digest.
    pub(crate) bundle: String,
}

impl Served {
    /// What a device serves.
    pub(crate) fn of(snapshot: &Snapshot) -> Option<Self> {
        let bundle = snapshot.bundle.clone()?;
        Some(Self { model: snapshot.model.clone().unwrap_or_default(), bundle })
    }
}

/// The rate that the plan counts with, and whether it is only assumed.
pub(crate) fn rate(limit: Option<Rate>) -> (Rate, bool) {
    (limit.unwrap_or(ASSUMED), limit.is_none())
}

/// What a device's answers mean for the model `bundle`.
pub(crate) fn planned(answer: &PlanResponse, now: &Snapshot, bundle: &str, rate: Rate) -> Planned {
    let told = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
    Planned {
        serves: Served::of(now),
        bytes: answer.bytes,
        seconds: rate.seconds(answer.bytes),
        disk_free: answer.free,
        memory: told(answer.memory),
        memory_free: told(answer.memory_free),
        in_turn: answer.in_turn,
        confirmed: now.bundle.as_deref() == Some(bundle) && now.confirmed && answer.bytes == 0,
        went_back: now.failure(bundle).map(str::to_owned),
    }
}

/// Why a device cannot take the model, as far as it says so beforehand.
pub(crate) fn obstacle(answer: &PlanResponse) -> Option<Reason> {
    if answer.bytes > answer.free {
        let (needed, free) = (HumanBytes(answer.bytes), HumanBytes(answer.free));
        return Some(Reason::new(
            "no_room",
            format!("its disk has no room: {needed} are needed, {free} are free for models"),
        ));
    }
    if !answer.refusal.is_empty() {
        return Some(Reason::new("too_small", answer.refusal.clone()));
    }
    let small = answer.memory > 0 && answer.memory_free > 0 && answer.memory > answer.memory_free && !answer.in_turn;
    small.then(|| {
        let (needed, free) = (HumanBytes(answer.memory), HumanBytes(answer.memory_free));
        Reason::new("too_small", format!("its memory is too small: {needed} are needed, {free} are free"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "sha256:new";

    #[test]
    fn what_a_device_does_not_say_stands_in_nobodys_way() {
        let unknown = PlanResponse { bytes: 5, free: 5, ..PlanResponse::default() };
        assert_eq!(obstacle(&unknown), None);
        for (answer, cause) in [
            (PlanResponse { bytes: 6, ..unknown.clone() }, Some("no_room")),
            (PlanResponse { memory: 9, memory_free: 8, ..unknown.clone() }, Some("too_small")),
            (PlanResponse { memory: 9, memory_free: 8, in_turn: true, ..unknown.clone() }, None),
            (PlanResponse { memory: 8, memory_free: 8, ..unknown.clone() }, None),
            (PlanResponse { memory: 9, ..unknown.clone() }, None),
            (PlanResponse { refusal: "it has 3 GB".to_owned(), ..unknown.clone() }, Some("too_small")),
        ] {
            assert_eq!(obstacle(&answer).map(|reason| reason.cause), cause.map(str::to_owned), "{answer:?}");
        }
    }

    #[test]
    fn seconds_are_those_of_the_limit_or_of_an_assumed_link() {
        let answer = PlanResponse { bytes: 25_000_000, free: 1 << 40, ..PlanResponse::default() };
        let seconds = |limit: Option<&str>| {
            let (rate, _) = rate(limit.map(|limit| limit.parse().unwrap()));
            planned(&answer, &Snapshot::default(), NEW, rate).seconds
        };
        assert_eq!((seconds(None), seconds(Some("5MB/s"))), (2.0, 5.0));
    }

    #[test]
    fn only_a_model_that_is_whole_served_and_confirmed_is_done() {
        let serves = Snapshot { bundle: Some(NEW.to_owned()), confirmed: true, ..Snapshot::default() };
        let whole = PlanResponse::default();
        let confirmed = |answer: &PlanResponse, now: &Snapshot| planned(answer, now, NEW, ASSUMED).confirmed;
        assert!(confirmed(&whole, &serves));
        assert!(!confirmed(&whole, &Snapshot { confirmed: false, ..serves.clone() }));
        assert!(!confirmed(&whole, &Snapshot { bundle: Some("sha256:old".to_owned()), ..serves.clone() }));
        assert!(!confirmed(&PlanResponse { bytes: 1, ..whole }, &serves), "a blob was lost");
    }
}
