//! What happens in a rollout, in words.

use indicatif::HumanBytes;

use super::table;
use crate::fleet::event::{DevicePlan, Event, Outcome, Reason, State};

/// Names that are told of a wave before the rest is only counted.
const NAMES: usize = 8;

/// The text for an event, of one or more lines; none where it is nothing to read.
pub(super) fn said(event: &Event) -> Option<String> {
    match event {
        Event::Begun { model, devices: 1, .. } => Some(format!("asking one device what it lacks of {model}")),
        Event::Begun { model, devices, .. } => Some(format!("asking {devices} devices what they lack of {model}")),
        Event::Plan { model, bundle, bytes, rate, rate_assumed, waves, devices } => {
            let rate = if *rate_assumed { format!("{rate} (assumed)") } else { rate.clone() };
            let waves: Vec<String> = waves.iter().map(usize::to_string).collect();
            Some(format!(
                "{model} ({}), {} in all; times are at {rate}\n{}\n{}; devices tried after each wave: {}",
                table::digest(bundle),
                HumanBytes(*bytes),
                table::plan(devices, bundle),
                total(devices),
                waves.join(", ")
            ))
        }
        Event::WaveStarted { wave, of, devices } => Some(format!("wave {wave} of {of}: {}", names(devices))),
        Event::DeviceState { device, state, bytes, reason } => state_words(device, *state, *bytes, reason.as_ref()),
        Event::Transferred { .. } => None,
        Event::Retry { device, seconds, reason } => {
            Some(format!("{device}: once more in {seconds:.0} s: {}", reason.words))
        }
        Event::Gate { wave, open, reason, proved, failed, skipped } => {
            let next = match (open, reason) {
                (true, _) => "the gate is open".to_owned(),
                (false, None) => "the gate is closed".to_owned(),
                (false, Some(why)) => format!("the gate is closed: {why}"),
            };
            Some(format!("wave {wave} is over: {proved} done, {failed} failed, {skipped} skipped; {next}"))
        }
        Event::Finished { .. } => None,
        Event::Report { model, bundle, outcome, devices, next } => Some(format!(
            "\n{model} ({}): {}\n{}\nnext: {next}",
            table::digest(bundle),
            outcome_words(*outcome),
            table::report(devices, bundle)
        )),
    }
}

fn state_words(device: &str, state: State, bytes: Option<u64>, reason: Option<&Reason>) -> Option<String> {
    let what = match (state, bytes) {
        (State::Waiting, _) => return None,
        (State::Sending, Some(0)) => "has it all already".to_owned(),
        (State::Sending, Some(bytes)) => format!("sending {}", HumanBytes(bytes)),
        (State::Activating, _) => "verifying, testing and switching".to_owned(),
        (State::Watched, _) => "serves it, and is watched".to_owned(),
        (state, _) => state.word().to_owned(),
    };
    Some(match reason {
        Some(reason) => format!("{device}: {what}: {}", reason.words),
        None => format!("{device}: {what}"),
    })
}

fn total(devices: &[DevicePlan]) -> String {
    let open: Vec<_> = devices.iter().filter(|device| device.skipped.is_none()).collect();
    let bytes: u64 = open.iter().filter_map(|device| device.planned.as_ref()).map(|planned| planned.bytes).sum();
    format!("{} of {} devices, {} travel", open.len(), devices.len(), HumanBytes(bytes))
}

fn names(devices: &[String]) -> String {
    match devices.get(..NAMES) {
        Some(first) if devices.len() > NAMES => format!("{} and {} more", first.join(", "), devices.len() - NAMES),
        _ => devices.join(", "),
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "served everywhere",
        Outcome::Partly => "not served everywhere",
        Outcome::Stopped => "stopped by its gate",
        Outcome::Interrupted => "interrupted",
        Outcome::DryRun => "only planned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_is_asked_in_the_singular() {
        let begun = |devices| Event::Begun { model: "tiny".to_owned(), bundle: String::new(), devices };
        assert_eq!(said(&begun(1)).unwrap(), "asking one device what it lacks of tiny");
        assert_eq!(said(&begun(2)).unwrap(), "asking 2 devices what they lack of tiny");
    }

    #[test]
    fn many_names_are_counted() {
        let devices: Vec<String> = (1..=10).map(|number| format!("gw-{number}")).collect();
        assert_eq!(names(&devices[..2]), "gw-1, gw-2");
        assert!(names(&devices).ends_with("gw-8 and 2 more"));
    }
}
