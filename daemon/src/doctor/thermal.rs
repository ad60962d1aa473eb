//! Whether the board is too hot, or has too little power, now or since it was started.

use super::{Finding, Patient, Verdict};
use crate::telemetry::host::{self, Host};

const CHECK: &str = "thermal";

/// A Raspberry Pi slows down from 80 °C on, others somewhat later.
const HOT: f64 = 80.0;
const WARM: f64 = 75.0;

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let readings = Host::new(patient.root, &patient.settings.state_dir).read();
    let now: Vec<&str> = readings.alarms.iter().filter(|alarm| alarm.on).map(|alarm| alarm.name).collect();
    let since = host::since_start(patient.root);
    let hottest = readings.temperatures.iter().max_by(|a, b| a.value.total_cmp(&b.value));
    let mut findings: Vec<Finding> = now.iter().map(|name| alarm(name, "now", Verdict::Problem)).collect();
    let past = since.iter().filter(|name| !now.contains(name));
    findings.extend(past.map(|name| alarm(name, "since it was started", Verdict::Warning)));
    match hottest {
        Some(sensor) if sensor.value >= WARM => {
            let verdict = if sensor.value >= HOT { Verdict::Warning } else { Verdict::Note };
            findings.push(Finding::new(
                CHECK,
                verdict,
                format!("{:.0} °C at {}", sensor.value, sensor.sensor.name),
                "boards slow down from 80 °C on: give it a fan or a heat sink, and air",
            ));
        }
        Some(sensor) if findings.is_empty() => {
            findings.push(Finding::ok(CHECK, format!("{:.0} °C at {}, no alarms", sensor.value, sensor.sensor.name)));
        }
        None if findings.is_empty() => findings.push(Finding::skipped(CHECK, "this machine shows no temperatures")),
        _ => {}
    }
    findings
}

fn alarm(name: &str, when: &str, verdict: Verdict) -> Finding {
    let advice = match name {
        "under-voltage" => {
            "the power supply is too weak, or its cable: take the board's own (5 V, 5 A for a Raspberry Pi 5; 5 V, 3 A for a 4)"
        }
        "over-current" => {
            "the board takes more than it may: take a lower power mode (`nvpmodel`), or a stronger supply"
        }
        "frequency-capped" | "throttled" | "soft-temperature-limit" => {
            "it computes slower than it could: give it a fan or a heat sink, and air; with under-voltage, a stronger power supply"
        }
        _ => "look at the board's documentation",
    };
    Finding::new(CHECK, verdict, format!("{name} {when}"), advice)
}
