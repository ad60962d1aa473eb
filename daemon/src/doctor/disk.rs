//! Whether the disk takes what the daemon keeps.

use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{Finding, Patient, Verdict, existing, size};

const CHECK: &str = "disk";

/// Uploads leave this much free, and so should everybody.
const RESERVE: u64 = 64 << 20;
/// A model comes as several files, each record as one.
const INODES: u64 = 1000;

/// A file system, as far as it matters.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    /// None where it does not count them.
    inodes: Option<u64>,
    read_only: bool,
}

/// What is kept in the folder that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The models: without them the daemon does not start.
    Models,
    /// The history alone: it is kept in memory where the disk does not take it.
    History,
}

impl Kept {
    /// How bad it is where nothing can be written.
    fn refused(self) -> Verdict {
        match self {
            Self::Models => Verdict::Problem,
            Self::History => Verdict::Warning,
        }
    }
}

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = patient.settings;
    let (dir, kept) = match (&settings.bundle, &settings.telemetry.dir) {
        (None, _) => (&settings.state_dir, Kept::Models),
        (Some(_), Some(dir)) => (dir, Kept::History),
        (Some(_), None) => {
            return vec![Finding::ok(
                CHECK,
                "nothing is written: with `bundle` and without telemetry.dir the history is in memory",
            )];
        }
    };
    let folder = existing(dir);
    let space = match statvfs(&folder) {
        Ok(stat) => Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: (stat.f_files > 0).then_some(stat.f_favail),
            read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        },
        Err(error) => return vec![Finding::skipped(CHECK, format!("{}: {error}", folder.display()))],
    };
    let model = patient.model.as_ref().ok().and_then(Option::as_ref).map(|model| model.weights);
    let model = model.filter(|_| kept == Kept::Models);
    let telemetry = &patient.settings.telemetry;
    let history = telemetry.history_bytes + telemetry.collector.as_ref().map_or(0, |_| telemetry.outbox_bytes);
    vec![judged((dir.as_path(), kept), space, model, history)]
}

fn judged((dir, kept): (&Path, Kept), space: Space, model: Option<u64>, history: u64) -> Finding {
    let dir = dir.display();
    if space.read_only {
        let cause = "an SD card or eMMC that fails becomes read-only: look at `dmesg`, copy what you need, and replace it; where it is \
                     meant so,";
        let (found, advice) = match kept {
            Kept::Models => ("", "set state_dir to a folder that can be written, or serve a bundle with `bundle`"),
            Kept::History => (
                ": the history is kept in memory, and ends with the daemon",
                "set telemetry.dir to a folder that can be written, or leave it out",
            ),
        };
        let found = format!("{dir} is on a file system that is read-only{found}");
        return Finding::new(CHECK, kept.refused(), found, format!("{cause} {advice}"));
    }
    if let Some(inodes) = space.inodes.filter(|inodes| *inodes < INODES) {
        return Finding::new(
            CHECK,
            kept.refused(),
            format!("{dir}: only {inodes} files can be made there any more"),
            "delete files that nobody needs: `df -i` shows the file system, `du --inodes -x / | sort -n | tail` where they are",
        );
    }
    let free = format!("{} are free in {dir}", size(space.free));
    let least = RESERVE.saturating_add(history);
    if space.free < RESERVE {
        let advice = match kept {
            Kept::Models => {
                "nothing can be deployed and records may be lost: remove models (`agent-cli models remove`) or other files"
            }
            Kept::History => {
                "the history cannot grow there: remove other files, or set telemetry.dir to another folder"
            }
        };
        return Finding::new(CHECK, kept.refused(), free, advice);
    }
    if space.free < least {
        let found = format!("{free}, and the history may grow to {}", size(history));
        let advice = "set telemetry.history_bytes lower, or remove models (`agent-cli models remove`) or other files";
        return Finding::new(CHECK, Verdict::Warning, found, advice);
    }
    match model {
        Some(model) if space.free < least.saturating_add(model) => Finding::new(
            CHECK,
            Verdict::Note,
            format!("{free}: another model as large as this one ({}) has no room beside it", size(model)),
            "remove models that are not needed before the next one is deployed: `agent-cli models list`, `agent-cli models remove`",
        ),
        _ => Finding::ok(CHECK, free),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_read_only_disk_is_a_problem() {
        let space = Space { free: 10_000_000_000, inodes: Some(100_000), read_only: false };
        for (space, model, verdict) in [
            (space, None, Verdict::Ok),
            (space, Some(1_800_000_000), Verdict::Ok),
            (space, Some(10_000_000_000), Verdict::Note),
            (Space { read_only: true, ..space }, None, Verdict::Problem),
            (Space { inodes: Some(3), ..space }, None, Verdict::Problem),
            (Space { inodes: None, ..space }, None, Verdict::Ok),
            (Space { free: 1_000_000, ..space }, None, Verdict::Problem),
            (Space { free: 100_000_000, ..space }, None, Verdict::Warning),
        ] {
            let finding = judged((Path::new("/var/lib/recurve"), Kept::Models), space, model, 200_000_000);
            assert_eq!(finding.verdict, verdict, "{space:?} {finding:?}");
            assert_eq!(finding.advice.is_empty(), verdict == Verdict::Ok);
        }
        // A daemon that keeps its history alone there serves without it.
        for space in
            [Space { read_only: true, ..space }, Space { inodes: Some(3), ..space }, Space { free: 1_000_000, ..space }]
        {
            let finding = judged((Path::new("/var/lib/recurve"), Kept::History), space, None, 200_000_000);
            assert_eq!(finding.verdict, Verdict::Warning, "{finding:?}");
        }
    }
}
