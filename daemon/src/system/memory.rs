//! How much memory there is for this process: the machine's, or what its control groups leave of it.

use std::fs;
use std::path::Path;

use super::group::{self, Version};

/// Bytes that this process may still take without anything being swapped or ended; none where the system does not say.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| machine(&text));
    match (machine, groups(root)) {
        (Some(machine), Some(groups)) => Some(machine.min(groups)),
        (machine, groups) => machine.or(groups),
    }
}

/// `MemAvailable` of `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files of a group: limit, use, and the fields of `memory.stat` that count files in the page cache, groups below included.
struct Names {
    limit: &'static str,
    used: &'static str,
    cache: [&'static str; 2],
}

const ONE: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: ["total_active_file", "total_inactive_file"],
};
const TWO: Names = Names { limit: "memory.max", used: "memory.current", cache: ["active_file", "inactive_file"] };

/// The least that the limit of any group leaves: files in the page cache give way.
fn groups(root: &Path) -> Option<u64> {
    let (version, folders) = group::folders(root, "memory")?;
    let names = match version {
        Version::One => ONE,
        Version::Two => TWO,
    };
    folders.iter().filter_map(|folder| left(folder, &names)).min()
}

fn left(folder: &Path, names: &Names) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // "max" of version 2 is no number; version 1 has a number that no machine reaches.
    let (limit, used) = (number(names.limit)?, number(names.used)?);
    let stat = read("memory.stat").unwrap_or_default();
    let field = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let cache = names.cache.iter().filter_map(|name| field(name)).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::super::group::tests::file;
    use super::*;

    #[test]
    fn the_machine_says_what_can_be_taken() {
        let meminfo = "MemTotal:       8000000 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB\n";
        assert_eq!(machine(meminfo), Some(3_000_000 * 1024));
        assert_eq!(machine("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_of_either_version_binds() {
        let root = tempfile::tempdir().unwrap();
        let file = |below: &str, text: &str| file(root.path(), below, text);
        file("proc/meminfo", "MemAvailable:    3 kB\n");
        assert_eq!(available_under(root.path()), Some(3072));
        // Version 2: the limit of the slice is tighter than the service's own.
        file("proc/self/cgroup", "0::/system.slice/recurved.service\n");
        let group = "sys/fs/cgroup/system.slice/recurved.service";
        file(&format!("{group}/memory.max"), "max\n");
        file(&format!("{group}/memory.current"), "800\n");
        assert_eq!(available_under(root.path()), Some(3072));
        file("sys/fs/cgroup/system.slice/memory.max", "1000\n");
        file("sys/fs/cgroup/system.slice/memory.current", "800\n");
        file("sys/fs/cgroup/system.slice/memory.stat", "anon 500\nfile 300\ninactive_file 200\nactive_file 100\n");
        assert_eq!(available_under(root.path()), Some(500));
        file(&format!("{group}/memory.max"), "900\n");
        assert_eq!(available_under(root.path()), Some(100));
        // Version 1.
        file("proc/self/cgroup", "4:memory:/a\n0::/\n");
        file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        file("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "400\n");
        assert_eq!(available_under(root.path()), Some(3072));
        file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "700\n");
        file("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 10\n");
        assert_eq!(available_under(root.path()), Some(360));
        file("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "800\n");
        assert_eq!(available_under(root.path()), Some(0), "more than the limit is used");
    }
}
