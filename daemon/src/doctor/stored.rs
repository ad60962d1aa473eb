//! Whether what is stored is whole, as far as the daemon found out: it hashes the models itself.

use std::io::ErrorKind;
use std::path::Path;

use recurve_bundle::shell;

use super::{Finding, Patient, Verdict};
use crate::store::{Store, StoreError, Told};
use crate::system::exit;

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
            Err(error) if patient.stranger && denied(&error) => {}
            Err(error) => {
                findings.push(Finding::new(CHECK, Verdict::Problem, error.to_string(), record_advice(&error)))
            }
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

/// Whether the system does not let this user read.
fn denied(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// What to do where the record of the models cannot be used.
fn record_advice(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { .. } => {
            "restart the daemon: it keeps a damaged record under another name, and rebuilds it from the blobs"
                .to_owned()
        }
        StoreError::Newer { .. } => format!(
            "this version does not start with it (exit code {}) and leaves it as it is: install the newer version again, or set \
             state_dir to another folder and deploy the models there",
            exit::DATA
        ),
        StoreError::Io { path, .. } if denied(error) => format!(
            "the user of the service must be able to read it: `ls -ld {}` shows its owner and mode",
            shell::quote(path)
        ),
        StoreError::Io { path, .. } => format!(
            "`ls -ld {}` shows what is there (models.json is a regular file), and `dmesg` errors of the disk; the daemon does not \
             start until it can be read",
            shell::quote(path)
        ),
        // None of the others is of the record.
        _ => "the log of the daemon (`journalctl -u recurved`) says more".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_the_system_refuses_is_not_called_damaged() {
        let refused = |kind: ErrorKind| {
            let path = "/my state/models.json".into();
            record_advice(&StoreError::Io { action: "read", path, source: kind.into() })
        };
        let denied = refused(ErrorKind::PermissionDenied);
        assert!(denied.starts_with("the user of the service must be able to read it"), "{denied}");
        let broken = refused(ErrorKind::Other);
        assert!(broken.contains("`dmesg` errors of the disk"), "{broken}");
        for advice in [denied, broken] {
            assert!(advice.contains("`ls -ld '/my state/models.json'`") && !advice.contains("restart"), "{advice}");
        }
    }
}
