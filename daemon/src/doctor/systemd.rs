//! Whether the service is set up where there is a systemd.

use std::fs;

use super::{Finding, Patient, Verdict};
use crate::system::socket_unit::Trouble;

const CHECK: &str = "systemd";

const UNITS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/recurved.service";
const SOCKET_ENABLED: &str = "etc/systemd/system/sockets.target.wants/recurved.socket";
/// Since then restarts can be spaced out.
const STEPS: u32 = 254;

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    if !patient.exists("run/systemd/system") {
        return vec![Finding::skipped(CHECK, "this machine does not run systemd")];
    }
    let version = version(patient);
    let shown = version.map_or_else(|| "systemd".to_owned(), |version| format!("systemd {version}"));
    let inside = patient.text("proc/self/cgroup").is_some_and(|group| group.contains("recurved.service"));
    if !UNITS.iter().any(|folder| patient.exists(&format!("{folder}/recurved.service"))) {
        return vec![Finding::new(
            CHECK,
            Verdict::Note,
            format!("{shown}, without a unit recurved.service"),
            "the daemon does not start with the machine: install the package recurved (docs/install.md)",
        )];
    }
    if !patient.exists(ENABLED) && !patient.exists(SOCKET_ENABLED) {
        return vec![Finding::new(
            CHECK,
            Verdict::Warning,
            format!("{shown}: recurved.service is installed and not enabled"),
            "it does not start with the machine: `sudo systemctl enable --now recurved.socket recurved.service`",
        )];
    }
    let drop_in = "etc/systemd/system/recurved.service.d/systemd-254.conf";
    if version.is_some_and(|version| version >= STEPS) && !patient.exists(drop_in) {
        return vec![Finding::new(
            CHECK,
            Verdict::Note,
            format!("{shown}, which can wait longer from restart to restart"),
            format!(
                "`sudo install -D -m 644 /usr/share/recurve/systemd/systemd-254.conf /{drop_in} && sudo systemctl daemon-reload`"
            ),
        )];
    }
    let runs = if inside { "; this is the service" } else { "" };
    vec![Finding::ok(CHECK, format!("{shown}, recurved.service is enabled{runs}"))]
}

/// A socket unit with which something is wrong.
pub(super) fn of_socket_unit(trouble: &Trouble) -> Finding {
    let verdict = match trouble {
        Trouble::Untold(_) => Verdict::Skipped,
        Trouble::Stale => Verdict::Warning,
        Trouble::Masked | Trouble::Wrong(_) => Verdict::Problem,
    };
    Finding::new(CHECK, verdict, trouble.found(), trouble.advice())
}

/// Its version, from the name of its own library.
fn version(patient: &Patient<'_>) -> Option<u32> {
    let folders =
        ["usr/lib/systemd", "lib/systemd", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib/aarch64-linux-gnu/systemd"];
    folders.iter().find_map(|folder| {
        fs::read_dir(patient.root.join(folder)).ok()?.flatten().find_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let version = name.strip_prefix("libsystemd-shared-")?.strip_suffix(".so")?;
            version.split(['.', '-']).next()?.parse().ok()
        })
    })
}
