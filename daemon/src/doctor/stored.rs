//! Whether what is stored is whole, as far as the daemon found out: it hashes the models itself.

use std::path::Path;

use super::{Finding, Patient, Verdict};
use crate::store::{Store, Told};

const CHECK: &str = "models";

const DEPLOY: &str = "deploy the model again (`agent-cli deploy BUNDLE`): only what is damaged travels. Where it happens again, replace the \
                      disk; `dmesg` shows its errors";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Vec::new();
    if patient.settings.bundle.is_none() {
        match Store::told(&patient.settings.state_dir) {
            Ok(told) => {
                findings.extend(damaged(&told));
                findings.extend(kept_aside(&told.kept_aside));
                known.extend(told.damaged.into_iter().map(|damaged| damaged.reason));
            }
            // The other checks say that it cannot be looked at.
            Err(_) if patient.stranger => {}
            Err(error) => findings.push(Finding::new(
                CHECK,
                Verdict::Problem,
                error.to_string(),
                "restart the daemon: it keeps a damaged record under another name, and rebuilds it from the blobs",
            )),
        }
    }
    // What the disk did not take.
    let alarms = patient.serving.iter().flat_map(|serving| &serving.alarms);
    for (name, words) in alarms.filter(|(_, words)| !known.iter().any(|reason| words.contains(reason.as_str()))) {
        findings.push(Finding::new(CHECK, Verdict::Problem, format!("{name}: {words}"), advice(name)));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "nothing is known to be damaged"));
    }
    findings
}

fn damaged(told: &Told) -> impl Iterator<Item = Finding> {
    told.damaged.iter().map(|damaged| {
        let (verdict, role) = match damaged.active {
            true => (Verdict::Problem, "the active model"),
            false => (Verdict::Warning, "the stored model"),
        };
        let found = format!("{role} {} is damaged and is not served: {}", damaged.bundle, damaged.reason);
        Finding::new(CHECK, verdict, found, DEPLOY)
    })
}

fn kept_aside(paths: &[impl AsRef<Path>]) -> Option<Finding> {
    let names: Vec<String> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
    (!names.is_empty()).then(|| {
        Finding::new(
            CHECK,
            Verdict::Note,
            format!(
                "the record of the models was damaged once and was rebuilt; the damaged one is {}",
                names.join(", ")
            ),
            "look at `agent-cli models` whether all is right, then delete the damaged file",
        )
    })
}

fn advice(alarm: &str) -> &'static str {
    match alarm {
        crate::telemetry::alarm::STATE_GONE => {
            "bring the directory back, or restart the daemon and deploy the models again: what is served now is in memory only"
        }
        _ => {
            "copy or export the bundle again and restart the daemon, or deploy the model again; `dmesg` shows errors of the disk"
        }
    }
}
