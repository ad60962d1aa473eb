//! How many processors this process may keep busy: those of the machine, less what its affinity (`taskset`, `CPUAffinity=`) and the
//! quota of its control groups (`CPUQuota=`) take away.

use std::fs;
use std::path::Path;

use super::group::{self, Version};

/// What is left to this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Processors that it may run on; none where the system does not say.
    pub allowed: Option<u32>,
    /// Hundredths of a processor that the tightest quota leaves; none without a quota.
    pub quota: Option<u64>,
}

impl Share {
    /// What the files under `root` say of this process.
    pub fn read(root: &Path) -> Self {
        Self { allowed: allowed(root), quota: quota(root) }
    }
}

/// The processors of the affinity mask, of proc(5): groups of 8 hexadecimal digits.
fn allowed(root: &Path) -> Option<u32> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"))?;
    let groups = mask.trim().split(',').map(|group| u32::from_str_radix(group, 16).map(u32::count_ones));
    Some(groups.collect::<Result<Vec<_>, _>>().ok()?.iter().sum()).filter(|count| *count > 0)
}

fn quota(root: &Path) -> Option<u64> {
    let (version, folders) = group::folders(root, "cpu")?;
    let of = |folder: &Path| {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let (quota, period) = match version {
            Version::One => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
            Version::Two => {
                let text = read("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        // "max", or -1 in version 1, is no quota.
        let [quota, period] = [quota, period].map(|text| text.trim().parse::<u64>().ok());
        quota?.saturating_mul(100).checked_div(period?)
    };
    folders.iter().filter_map(|folder| of(folder)).min()
}

#[cfg(test)]
mod tests {
    use super::super::group::tests::file;
    use super::*;

    #[test]
    fn affinity_and_the_tightest_quota_of_either_version_are_read() {
        let root = tempfile::tempdir().unwrap();
        let file = |below: &str, text: &str| file(root.path(), below, text);
        let share = |allowed, quota| Share { allowed, quota };
        assert_eq!(Share::read(root.path()), share(None, None));
        file("proc/self/status", "Name:\tx\nCpus_allowed:\tff,00000003\nCpus_allowed_list:\t0-1,32-39\n");
        assert_eq!(Share::read(root.path()), share(Some(10), None));
        file("proc/self/cgroup", "0::/a/b\n");
        file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(Share::read(root.path()), share(Some(10), None));
        file("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        assert_eq!(Share::read(root.path()), share(Some(10), Some(150)));
        file("proc/self/cgroup", "2:cpu,cpuacct:/a\n0::/\n");
        file("proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n");
        file("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
        file("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
        assert_eq!(Share::read(root.path()), share(Some(10), None));
        file("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n");
        assert_eq!(Share::read(root.path()), share(Some(10), Some(50)));
    }

    #[test]
    fn the_affinity_of_this_process_is_what_the_system_counts() {
        let processors = std::thread::available_parallelism().unwrap().get() as u32;
        assert!(Share::read(Path::new("/")).allowed.is_none_or(|allowed| allowed >= processors));
    }
}
