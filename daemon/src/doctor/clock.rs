//! Whether the clock can be right: certificates, signatures and the history depend on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Finding, Patient, Verdict};
use crate::trust;

const CHECK: &str = "clock";

/// A clock that stands before is one that was never set.
const EARLIEST: Duration = Duration::from_secs(trust::EARLIEST);
/// What systemd-timesyncd leaves when it has set the clock.
const SET: &str = "run/systemd/timesync/synchronized";
/// It is there as soon as chrony runs, whether or not it could set the clock.
const CHRONY: &str = "run/chrony/chronyd.pid";

/// What is known of who sets the clock.
#[derive(Debug, Clone, Copy)]
enum Network {
    Set,
    Chrony,
    Silent,
}

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let network = match () {
        () if patient.exists(SET) => Network::Set,
        () if patient.exists(CHRONY) => Network::Chrony,
        () => Network::Silent,
    };
    vec![judged(patient.now, network, patient.exists("sys/class/rtc/rtc0"))]
}

fn judged(now: SystemTime, network: Network, battery: bool) -> Finding {
    let date = chrono::DateTime::<chrono::Utc>::from(now).format("%Y-%m-%d %H:%M:%S UTC");
    let advice = "have the network set it: `sudo timedatectl set-ntp true`, or chrony; certificates and signed models are refused \
                  by a clock that is wrong";
    if now < UNIX_EPOCH + EARLIEST {
        return Finding::new(CHECK, Verdict::Problem, format!("it says {date}, which is in the past"), advice);
    }
    match (network, battery) {
        (Network::Set, _) => Finding::ok(CHECK, format!("{date}, set by the network")),
        (Network::Chrony, _) => Finding::new(
            CHECK,
            Verdict::Note,
            format!("{date}; chronyd runs"),
            "whether it set the clock: `chronyc tracking`",
        ),
        (Network::Silent, true) => {
            Finding::new(CHECK, Verdict::Note, format!("{date}; nothing tells that the network set it"), advice)
        }
        (Network::Silent, false) => Finding::new(
            CHECK,
            Verdict::Warning,
            format!("{date}; nothing tells that the network set it, and there is no clock that runs on without power"),
            advice,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_a_problem() {
        let later = UNIX_EPOCH + EARLIEST + Duration::from_secs(1);
        for (now, network, battery, verdict) in [
            (UNIX_EPOCH, Network::Set, true, Verdict::Problem),
            (later, Network::Set, false, Verdict::Ok),
            (later, Network::Chrony, false, Verdict::Note),
            (later, Network::Silent, true, Verdict::Note),
            (later, Network::Silent, false, Verdict::Warning),
        ] {
            assert_eq!(judged(now, network, battery).verdict, verdict, "{now:?} {network:?} {battery}");
        }
    }
}
