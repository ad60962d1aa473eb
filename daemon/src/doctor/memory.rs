//! Whether the model has room in memory, before the kernel finds out.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Finding, Model, Patient, Verdict, ports, size};
use crate::deployment::MEMORY_ADVICE as ADVICE;

const CHECK: &str = "memory";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let total = kilobytes(patient, "MemTotal:");
    let mut findings = vec![fits(patient, total)];
    findings.extend(swap(patient));
    findings
}

fn kilobytes(patient: &Patient<'_>, name: &str) -> Option<u64> {
    let text = patient.text("proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn fits(patient: &Patient<'_>, total: Option<u64>) -> Finding {
    let Some(available) = patient.available else {
        return Finding::skipped(CHECK, "the system does not say how much there is");
    };
    let of = total.map(|total| format!(" of {}", size(total))).unwrap_or_default();
    let free = format!("{}{of} can be taken", size(available));
    match &patient.model {
        Err(untold) if untold.denied && patient.stranger => Finding::hidden(CHECK, &format!("{free}; the model")),
        Err(untold) => Finding::new(
            CHECK,
            Verdict::Problem,
            format!("{free}; the model cannot be opened: {}", untold.reason),
            "set `bundle` to the folder of a bundle (`agent-cli bundle verify DIR` checks one), or deploy the model again",
        ),
        Ok(None) => {
            Finding::ok(CHECK, format!("{free}; there is no model yet: `agent-cli deploy` looks whether one fits"))
        }
        Ok(Some(model)) if patient.serving.is_some_and(|serving| serving.model) => {
            Finding::ok(CHECK, format!("{free}, beside {}, which is served", model.name))
        }
        Ok(Some(model)) => {
            let finding = room(&free, available, model);
            match finding.verdict > Verdict::Note && patient.serving.is_none() && runs(patient) {
                true => beside(finding),
                false => finding,
            }
        }
    }
}

fn room(free: &str, available: u64, model: &Model) -> Finding {
    let Model { name, needed, weights } = model;
    let takes = format!("{name} takes {} beside its weights of {}", size(*needed), size(*weights));
    if *needed > available {
        return Finding::new(CHECK, Verdict::Problem, format!("{free}, and {takes}"), ADVICE);
    }
    if needed.saturating_add(*weights) > available {
        let advice = "weights that do not stay in memory are read from the disk at every step, which is very slow: ";
        return Finding::new(CHECK, Verdict::Warning, format!("{free}, and {takes}"), format!("{advice}{ADVICE}"));
    }
    Finding::ok(CHECK, format!("{free}; {takes}"))
}

/// The same where a daemon may have taken already what it needs.
fn beside(finding: Finding) -> Finding {
    let found = format!("{}; a daemon runs, and may have taken that already", finding.found);
    Finding::new(CHECK, Verdict::Note, found, "ask the daemon itself: `agent-cli doctor --on ADDRESS`")
}

/// Whether a daemon runs that has this model: it holds the store, or where it has a bundle, something listens for it.
fn runs(patient: &Patient<'_>) -> bool {
    match patient.settings.bundle {
        None => holder(patient).is_some_and(|pid| daemon(patient.root, pid)),
        Some(_) => others(patient.root).any(|pid| daemon(patient.root, pid)) && ports::listened(patient),
    }
}

/// The process that has locked the store: the kernel's table tells it, so that the lock is not tried.
fn holder(patient: &Patient<'_>) -> Option<u32> {
    let inode = patient.settings.state_dir.join("lock").metadata().ok()?.ino().to_string();
    let locks = patient.text("proc/locks")?;
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, file, ..] if file.rsplit(':').next() == Some(&*inode) => pid.parse().ok(),
        _ => None,
    })
}

/// The other processes.
fn others(root: &Path) -> impl Iterator<Item = u32> {
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id())
}

fn daemon(root: &Path, pid: u32) -> bool {
    fs::read_to_string(root.join(format!("proc/{pid}/comm"))).is_ok_and(|name| name.trim() == "recurved")
}

/// Swap on flash wears it out, and what is swapped makes answers slow.
fn swap(patient: &Patient<'_>) -> Option<Finding> {
    let swaps = patient.text("proc/swaps")?;
    let devices: Vec<&str> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let slow = devices.iter().find(|device| !device.contains("zram"))?;
    Some(Finding::new(
        CHECK,
        Verdict::Note,
        format!("there is swap on {slow}"),
        "on an SD card or eMMC it wears the flash out and is slow: zram is better there (package systemd-zram-generator or zram-tools)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_a_problem_with_figures() {
        let model = Model { name: "m".to_owned(), needed: 300_000_000, weights: 1_800_000_000 };
        let finding = room("200 MB can be taken", 200_000_000, &model);
        assert_eq!(finding.verdict, Verdict::Problem);
        assert!(finding.found.contains("takes 300 MB beside its weights of 1.8 GB"), "{}", finding.found);
        assert!(finding.advice.contains("engine.slots") && finding.advice.contains("int4"), "{}", finding.advice);
        assert_eq!(room("", 1_000_000_000, &model).verdict, Verdict::Warning);
        assert_eq!(room("", 2_100_000_000, &model).verdict, Verdict::Ok);
    }
}
