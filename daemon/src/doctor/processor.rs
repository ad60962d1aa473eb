//! Whether our kernels have the instructions that make them fast, whether there is a core for each thread, and whether the cores
//! are allowed to be fast.

use super::{Finding, Patient, Verdict};
use crate::telemetry::host::Machine;

const CHECK: &str = "cpu";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let machine = Machine::read(patient.root);
    let mut findings =
        vec![instructions(recurve_runtime::instruction_set(), machine.cores, patient.settings.engine.threads)];
    findings.extend(governor(patient));
    findings
}

fn instructions(set: &str, cores: u32, threads: usize) -> Finding {
    if set == "scalar" {
        return Finding::new(
            CHECK,
            Verdict::Warning,
            format!("{cores} cores without instructions that our kernels know"),
            "answers will be slow: take a processor with dot products (Cortex-A76 as in the Raspberry Pi 5, or later) or AVX2",
        );
    }
    let threads_in_words = if threads == 0 { "one thread for each".to_owned() } else { format!("{threads} threads") };
    if cores > 0 && threads > cores as usize {
        return Finding::new(
            CHECK,
            Verdict::Warning,
            format!("engine.threads = {threads}, and there are {cores} cores"),
            format!(
                "threads that share a core wait for each other at each step: set engine.threads to {cores} or less, or to 0"
            ),
        );
    }
    if set == "neon" {
        return Finding::new(
            CHECK,
            Verdict::Note,
            format!("{cores} cores, {set}, {threads_in_words}"),
            "this processor has no dot products (the Raspberry Pi 4 has none): products take several times as long as on one that has",
        );
    }
    Finding::ok(CHECK, format!("{cores} cores, {set}, {threads_in_words}"))
}

/// The first group of cores that is held back.
fn governor(patient: &Patient<'_>) -> Option<Finding> {
    let folder = patient.root.join("sys/devices/system/cpu/cpufreq");
    let mut groups: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    groups.sort();
    let word =
        |group: &std::path::Path, file: &str| Some(std::fs::read_to_string(group.join(file)).ok()?.trim().to_owned());
    // Those of Intel's and AMD's own drivers are fast under this name, too.
    let own = |group: &std::path::Path| {
        word(group, "scaling_driver")
            .is_some_and(|name| name.starts_with("intel_pstate") || name.starts_with("amd-pstate-epp"))
    };
    let held =
        groups.iter().find(|group| word(group, "scaling_governor").as_deref() == Some("powersave") && !own(group))?;
    Some(Finding::new(
        CHECK,
        Verdict::Warning,
        format!(
            "the governor of {} is powersave: the cores stay at their lowest clock",
            held.file_name()?.to_string_lossy()
        ),
        "set it to schedutil or performance: `echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor`; \
         docs/boards.md says how it stays so",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_without_cores_and_slow_instructions_are_told() {
        for (set, cores, threads, verdict) in [
            ("avx512-vnni", 8, 0, Verdict::Ok),
            ("avx2", 4, 4, Verdict::Ok),
            ("avx2", 4, 5, Verdict::Warning),
            ("avx2", 0, 5, Verdict::Ok),
            ("neon", 4, 0, Verdict::Note),
            ("scalar", 4, 0, Verdict::Warning),
        ] {
            assert_eq!(instructions(set, cores, threads).verdict, verdict, "{set} {cores} {threads}");
        }
    }
}
