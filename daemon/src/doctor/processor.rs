//! Whether our kernels have the instructions that make them fast, whether there is a core for each thread, and whether the cores
//! are allowed to be fast.

use super::{Finding, Patient, Verdict};
use crate::system::processors::Share;
use crate::telemetry::host::Machine;

const CHECK: &str = "cpu";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let machine = Machine::read(patient.root);
    let configured = patient.settings.engine.threads;
    let mut findings = vec![instructions(
        recurve_runtime::instruction_set(),
        machine.cores,
        Share::read(patient.root),
        (configured, recurve_runtime::threads(configured)),
    )];
    findings.extend(governor(patient));
    findings
}

/// `configured`: 0 for one on each processor; `threads`: those in effect.
fn instructions(set: &str, cores: u32, share: Share, (configured, threads): (usize, usize)) -> Finding {
    let usable = usable(cores, share);
    let cores_in_words = cores_in_words(cores, share);
    if set == "scalar" {
        return Finding::new(
            CHECK,
            Verdict::Warning,
            format!("{cores_in_words}, without instructions that our kernels know"),
            "answers will be slow: take a processor with dot products (Cortex-A76 as in the Raspberry Pi 5, or later) or AVX2",
        );
    }
    let threads_in_words = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    if usable > 0 && configured > usable as usize {
        return Finding::new(
            CHECK,
            Verdict::Warning,
            format!("engine.threads = {configured}, and there are {cores_in_words}"),
            format!(
                "threads that share a core wait for each other at each step: set engine.threads to {usable} or less, or to 0"
            ),
        );
    }
    if set == "neon" {
        return Finding::new(
            CHECK,
            Verdict::Note,
            format!("{cores_in_words}, {set}, {threads_in_words}"),
            "this processor has no dot products (the Raspberry Pi 4 has none): products take several times as long as on one that has",
        );
    }
    Finding::ok(CHECK, format!("{cores_in_words}, {set}, {threads_in_words}"))
}

/// Cores that can be kept busy; 0 where the system does not say how many there are.
fn usable(cores: u32, share: Share) -> u32 {
    let allowed = share.allowed.map_or(cores, |allowed| allowed.min(cores));
    let whole = share.quota.map(|hundredths| u32::try_from(hundredths / 100).unwrap_or(u32::MAX).max(1));
    whole.map_or(allowed, |whole| allowed.min(whole))
}

fn cores_in_words(cores: u32, share: Share) -> String {
    let counted = |cores: u32| if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    let mut words = counted(cores);
    if let Some(allowed) = share.allowed.filter(|allowed| *allowed < cores) {
        words.push_str(&format!(", of which the affinity of this process allows {allowed}"));
    }
    if let Some(quota) = share.quota.filter(|quota| *quota < u64::from(cores) * 100) {
        words.push_str(&format!(", a CPU quota of {}.{:02} cores", quota / 100, quota % 100));
    }
    words
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
        for (set, cores, configured, verdict) in [
            ("avx512-vnni", 8, 0, Verdict::Ok),
            ("avx2", 4, 4, Verdict::Ok),
            ("avx2", 4, 5, Verdict::Warning),
            ("avx2", 0, 5, Verdict::Ok),
            ("neon", 4, 0, Verdict::Note),
            ("scalar", 4, 0, Verdict::Warning),
        ] {
            let finding = instructions(set, cores, Share::default(), (configured, configured.max(1)));
            assert_eq!(finding.verdict, verdict, "{set} {cores} {configured}");
        }
    }

    #[test]
    fn cores_that_this_process_may_not_use_are_not_counted() {
        let share = |allowed, quota| Share { allowed, quota };
        for (share, configured, threads, verdict, found) in [
            (share(Some(4), None), 0, 4, Verdict::Ok, "4 cores, avx2, 4 threads"),
            (
                share(Some(1), None),
                0,
                1,
                Verdict::Ok,
                "4 cores, of which the affinity of this process allows 1, avx2, 1 thread",
            ),
            (share(None, Some(150)), 0, 1, Verdict::Ok, "4 cores, a CPU quota of 1.50 cores, avx2, 1 thread"),
            (share(Some(4), Some(800)), 0, 4, Verdict::Ok, "4 cores, avx2, 4 threads"),
            (
                share(None, Some(50)),
                2,
                2,
                Verdict::Warning,
                "engine.threads = 2, and there are 4 cores, a CPU quota of 0.50 cores",
            ),
            (share(Some(2), Some(300)), 3, 3, Verdict::Warning, "engine.threads = 3, and there are 4 cores, of which"),
        ] {
            let finding = instructions("avx2", 4, share, (configured, threads));
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.starts_with(found), "{finding:?}");
        }
        assert!(instructions("avx2", 4, share(None, Some(250)), (3, 3)).advice.contains("to 2 or less, or to 0"));
    }
}
