//! How much memory there is for this process: the machine's, or what its control group leaves of it.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that this process may still take without anything being swapped or ended; none where the system does not say.
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine(&text));
    match (machine, group()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// `MemAvailable` of `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the control group's limit leaves: its files in the page cache give way.
fn group() -> Option<u64> {
    let dir = group_folder(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    left(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
}

/// The folder of the process's group, version 2.
fn group_folder(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

fn left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let field = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let cache = field("active_file").unwrap_or(0).saturating_add(field("inactive_file").unwrap_or(0));
    Some(max.saturating_sub(current.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read() {
        let meminfo = "MemTotal:       8000000 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB\n";
        assert_eq!(machine(meminfo), Some(3_000_000 * 1024));
        assert_eq!(machine("MemTotal: 1 kB\n"), None);
        assert_eq!(
            group_folder("12:cpu:/x\n0::/system.slice/recurved.service\n"),
            Some(PathBuf::from("/sys/fs/cgroup/system.slice/recurved.service"))
        );
        assert_eq!(group_folder("4:memory:/x\n"), None);
        let stat = "anon 500\nfile 300\ninactive_file 200\nactive_file 100\n";
        assert_eq!(left("1000\n", "800\n", stat), Some(500));
        assert_eq!(left("max\n", "800\n", stat), None);
        assert_eq!(left("100\n", "800\n", stat), Some(0));
    }
}
