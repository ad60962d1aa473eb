//! The gate between waves: whether a device proves the model, and whether the next wave may begin. Pure: decided from what
//! devices say of themselves.

use std::time::Duration;

use super::wave::Share;

/// What a device says of itself at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// Another with each start of the daemon; none where it does not say.
    pub(crate) instance: Option<String>,
    /// Whether requests are answered; none where it does not say.
    pub(crate) serving: Option<bool>,
    /// The model that is served.
    pub(crate) bundle: Option<String>,
    /// That model's name.
    pub(crate) model: Option<String>,
    /// It has proved itself for the device's own time of probation.
    pub(crate) confirmed: bool,
    /// What is left of that time, where the device says it.
    pub(crate) probation: Option<Duration>,
    /// Requests that the model failed, since it is served.
    pub(crate) failed: u64,
    /// Each model that the device went back from by itself, and why.
    pub(crate) failures: Vec<(String, String)>,
}

impl Snapshot {
    /// Why the device went back from a model by itself.
    pub(crate) fn failure(&self, bundle: &str) -> Option<&str> {
        self.failures.iter().find(|(failed, _)| failed == bundle).map(|(_, why)| why.as_str())
    }
}

/// How a device failed the model, in a word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device went back from it by itself.
    WentBack,
    /// Something else is served.
    ServesAnother,
    /// Nothing is served.
    NotServing,
    /// The daemon was started again.
    Restarted,
    /// Requests failed.
    RequestsFailed,
}

impl Fault {
    /// That word.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::WentBack => "went_back",
            Self::ServesAnother => "serves_another",
            Self::NotServing => "not_serving",
            Self::Restarted => "restarted",
            Self::RequestsFailed => "requests_failed",
        }
    }
}

/// Whether a device that is watched still serves the model well, judged by the first snapshot after its activation and the one
/// now.
pub(super) fn judge(first: &Snapshot, now: &Snapshot, bundle: &str) -> Result<(), (Fault, String)> {
    serves_on(now, bundle)?;
    if let (Some(before), Some(after)) = (&first.instance, &now.instance)
        && before != after
    {
        return Err((Fault::Restarted, "the daemon ended and was started again".to_owned()));
    }
    match now.failed.saturating_sub(first.failed) {
        0 => Ok(()),
        1 => Err((Fault::RequestsFailed, "a request failed".to_owned())),
        count => Err((Fault::RequestsFailed, format!("{count} requests failed"))),
    }
}

/// Whether a device that proved the model serves it still. It was watched long enough: that it was started again since, or that
/// a request failed, is not held against the model.
pub(super) fn serves_on(now: &Snapshot, bundle: &str) -> Result<(), (Fault, String)> {
    if let Some(why) = now.failure(bundle) {
        return Err((Fault::WentBack, format!("the device went back from the model by itself: {why}")));
    }
    match now.bundle.as_deref() {
        Some(served) if served == bundle => {}
        Some(served) => return Err((Fault::ServesAnother, format!("another model is served now: {served}"))),
        None => return Err((Fault::NotServing, "no model is served any more".to_owned())),
    }
    if now.serving == Some(false) {
        return Err((Fault::NotServing, "requests are not answered any more".to_owned()));
    }
    Ok(())
}

/// How the devices of a rollout ended so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// They serve the model, and served it well for the time that they were watched.
    pub(super) proved: usize,
    /// They failed with the model.
    pub(super) failed: usize,
}

/// Whether so many failures are too many: `most` of so many devices are allowed.
pub(super) fn too_many(failed: usize, most: Share, devices: usize) -> Option<String> {
    let allowed = most.down(devices);
    (failed > allowed).then(|| match allowed {
        0 => format!("{failed} failed, none may"),
        allowed => format!("{failed} failed, {allowed} of {devices} may"),
    })
}

/// Why the next wave must not begin, with so many devices `left` for it; none where it may, or there is none.
pub(super) fn closed(counts: Counts, most: Share, devices: usize, left: usize) -> Option<String> {
    let nothing = || (counts.proved == 0 && left > 0).then(|| "no device proved the model".to_owned());
    too_many(counts.failed, most, devices).or_else(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "sha256:new";

    fn well() -> Snapshot {
        Snapshot {
            instance: Some("1".to_owned()),
            serving: Some(true),
            bundle: Some(NEW.to_owned()),
            failed: 4,
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_device_proves_the_model_by_serving_it_on() {
        assert_eq!(judge(&well(), &well(), NEW), Ok(()));
        // What a device does not say is not held against it.
        let silent = Snapshot { bundle: Some(NEW.to_owned()), ..Snapshot::default() };
        assert_eq!(judge(&silent, &silent, NEW), Ok(()));
        let before = Snapshot { failures: vec![("sha256:old".to_owned(), "x".to_owned())], ..well() };
        assert_eq!(judge(&before, &before, NEW), Ok(()), "another model's failure");
        for (now, fault) in [
            (Snapshot { failures: vec![(NEW.to_owned(), "it crashed".to_owned())], ..well() }, Fault::WentBack),
            (Snapshot { bundle: Some("sha256:old".to_owned()), ..well() }, Fault::ServesAnother),
            (Snapshot { bundle: None, ..well() }, Fault::NotServing),
            (Snapshot { serving: Some(false), ..well() }, Fault::NotServing),
            (Snapshot { instance: Some("2".to_owned()), ..well() }, Fault::Restarted),
            (Snapshot { failed: 5, ..well() }, Fault::RequestsFailed),
        ] {
            assert_eq!(judge(&well(), &now, NEW).unwrap_err().0, fault, "{now:?}");
            // Once it is proved, only what is served counts.
            let passing = matches!(fault, Fault::Restarted | Fault::RequestsFailed);
            let expected = if passing { None } else { Some(fault) };
            assert_eq!(serves_on(&now, NEW).err().map(|(fault, _)| fault), expected, "{now:?}");
        }
    }

    #[test]
    fn the_gate_is_closed_by_failures_and_by_nothing_proved() {
        let counts = |proved, failed| Counts { proved, failed };
        for (counts, most, open) in [
            (counts(1, 0), Share::Count(0), true),
            (counts(9, 1), Share::Count(0), false),
            (counts(9, 1), Share::Count(1), true),
            (counts(90, 10), Share::Percent(10), true),
            (counts(90, 11), Share::Percent(10), false),
            (counts(0, 0), Share::Percent(100), false),
            (counts(0, 3), Share::Count(5), false),
        ] {
            assert_eq!(closed(counts, most, 100, 1).is_none(), open, "{counts:?} {most}");
        }
        assert_eq!(closed(counts(0, 0), Share::Count(0), 100, 0), None, "nothing is left that a gate could hold back");
        assert!(too_many(1, Share::Percent(10), 9).is_some(), "10% of 9 is no whole device");
    }

    proptest::proptest! {
        #[test]
        fn more_failures_never_open_a_gate(proved in 0usize..50, failed in 0usize..50, percent in 0usize..=100) {
            let closed = |failed| closed(Counts { proved, failed }, Share::Percent(percent), 50, 1).is_some();
            proptest::prop_assert!(!closed(failed) || closed(failed + 1));
        }
    }
}
