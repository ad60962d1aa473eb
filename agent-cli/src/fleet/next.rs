//! What to do after a rollout, in words. Pure: decided from the report.

use super::event::{DeviceReport, Outcome, State};

/// What helps against a reason that is the same on every device: the signatures are those of the model.
const SIGNATURES: [(&str, &str); 2] = [
    ("not_signed", "sign the model with `agent-cli trust sign --dir TRUST BUNDLE`"),
    ("trust_expired", "renew its signatures with `agent-cli trust refresh --dir TRUST BUNDLE`"),
];

/// What to do next.
pub(super) fn next(outcome: Outcome, rolled_back: bool, devices: &[DeviceReport]) -> String {
    let done = devices.iter().any(|device| matches!(device.state, State::Proved | State::Kept));
    match outcome {
        Outcome::Done if devices.iter().any(|device| device.reason.is_some()) => {
            "every device proved the model: see to those that do not answer now".to_owned()
        }
        Outcome::Done | Outcome::DryRun => "nothing is left to do".to_owned(),
        Outcome::Partly => partly(devices),
        Outcome::Stopped if rolled_back || !done => {
            "find out why the devices failed before you deploy this model again".to_owned()
        }
        Outcome::Stopped => {
            "find out why the devices failed; `agent-cli rollback --to NAMES` takes the model back where it is served"
                .to_owned()
        }
        Outcome::Interrupted => "run the same command again with --resume: it goes on where it was".to_owned(),
    }
}

fn partly(devices: &[DeviceReport]) -> String {
    let causes: Vec<&str> = devices.iter().filter_map(|device| Some(device.reason.as_ref()?.cause.as_str())).collect();
    let known = SIGNATURES.iter().filter(|(cause, _)| causes.contains(cause));
    let mut steps: Vec<&str> = known.map(|(_, step)| *step).collect();
    if causes.iter().any(|cause| SIGNATURES.iter().all(|(known, _)| cause != known)) {
        steps.push(if steps.is_empty() {
            "see to the devices with a reason"
        } else {
            "see to the other devices with a reason"
        });
    }
    format!("{} and run the same command again: what is done is not done twice", steps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::event::Reason;
    use super::*;

    fn device(state: State, cause: Option<&str>) -> DeviceReport {
        let reason = cause.map(|cause| Reason::new(cause, "words"));
        DeviceReport { device: "gw-1".to_owned(), state, sent: 0, serves: None, reason }
    }

    #[test]
    fn what_is_to_be_signed_or_renewed_is_said() {
        let (unsigned, expired) =
            (device(State::Skipped, Some("not_signed")), device(State::Skipped, Some("trust_expired")));
        let (away, well) = (device(State::Skipped, Some("unreachable")), device(State::Proved, None));
        let again = "and run the same command again: what is done is not done twice";
        let text = |devices: &[&DeviceReport]| {
            let devices: Vec<DeviceReport> = devices.iter().copied().cloned().collect();
            next(Outcome::Partly, false, &devices)
        };
        assert_eq!(text(&[&away, &well]), format!("see to the devices with a reason {again}"));
        let sign = "sign the model with `agent-cli trust sign --dir TRUST BUNDLE`";
        assert_eq!(text(&[&unsigned, &unsigned]), format!("{sign} {again}"));
        assert_eq!(text(&[&unsigned, &away]), format!("{sign}, see to the other devices with a reason {again}"));
        assert!(
            text(&[&expired]).starts_with("renew its signatures with `agent-cli trust refresh --dir TRUST BUNDLE`")
        );
    }

    #[test]
    fn what_was_stopped_is_looked_into_and_taken_back_where_it_is_served() {
        let (failed, well) = (device(State::Failed, Some("went_back")), device(State::Proved, None));
        let taken_back = |rolled_back, devices: &[DeviceReport]| {
            next(Outcome::Stopped, rolled_back, devices).contains("agent-cli rollback")
        };
        assert!(taken_back(false, &[failed.clone(), well.clone()]));
        assert!(!taken_back(true, &[failed.clone(), well]));
        assert!(!taken_back(false, &[failed]));
    }

    #[test]
    fn who_is_silent_at_the_end_is_not_forgotten() {
        let (silent, well) = (device(State::Proved, Some("unreachable")), device(State::Kept, None));
        assert_eq!(next(Outcome::Done, false, std::slice::from_ref(&well)), "nothing is left to do");
        assert!(next(Outcome::Done, false, &[well, silent]).contains("do not answer now"));
    }
}
