//! Whether the clock can be right: certificates, signatures and the history depend on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Finding, Patient, Verdict};

const CHECK: &str = "clock";

/// 2026-01-01: a clock that stands before is one that was never set.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// What tells that the clock was set by the network: systemd-timesyncd, chrony, ntpsec.
const SIGNS: [&str; 2] = ["run/systemd/timesync/synchronized", "run/chrony/chronyd.pid"];

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let set = SIGNS.iter().any(|sign| patient.exists(sign));
    vec![judged(patient.now, set, patient.exists("sys/class/rtc/rtc0"))]
}

fn judged(now: SystemTime, set: bool, battery: bool) -> Finding {
    let date = chrono::DateTime::<chrono::Utc>::from(now).format("%Y-%m-%d %H:%M:%S UTC");
    let advice = "have the network set it: `sudo timedatectl set-ntp true`, or chrony; certificates and signed models are refused \
                  by a clock that is wrong";
    if now < UNIX_EPOCH + EARLIEST {
        return Finding::new(CHECK, Verdict::Problem, format!("it says {date}, which is in the past"), advice);
    }
    match (set, battery) {
        (true, _) => Finding::ok(CHECK, format!("{date}, set by the network")),
        (false, true) => {
            Finding::new(CHECK, Verdict::Note, format!("{date}; nothing tells that the network set it"), advice)
        }
        (false, false) => Finding::new(
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
        for (now, set, battery, verdict) in [
            (UNIX_EPOCH, true, true, Verdict::Problem),
            (later, true, false, Verdict::Ok),
            (later, false, true, Verdict::Note),
            (later, false, false, Verdict::Warning),
        ] {
            assert_eq!(judged(now, set, battery).verdict, verdict, "{now:?} {set} {battery}");
        }
    }
}
