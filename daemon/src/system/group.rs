//! The control groups that this process is in, versions 1 and 2, by the kernel's files under a root. A limit of any group from the
//! process's own up to the mount binds it.

use std::fs;
use std::path::{Path, PathBuf};

/// The hierarchy that has a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// The groups of this process for a controller, its own first, and their version; none where the system has no such groups.
pub(super) fn folders(root: &Path, controller: &str) -> Option<(Version, Vec<PathBuf>)> {
    // Mounts may have names that are not UTF-8: those of groups have none.
    let read = |below: &str| Some(String::from_utf8_lossy(&fs::read(root.join(below)).ok()?).into_owned());
    let (version, own) = own(&read("proc/self/cgroup")?, controller)?;
    let (top, mount) = read("proc/self/mountinfo")
        .and_then(|mounts| mounted(&mounts, version, controller))
        .unwrap_or_else(|| ("/".to_owned(), usual(version, controller)));
    // In a container the mount begins at its own group, which the path may name or not.
    let below = Path::new(&own).strip_prefix(&top).unwrap_or(Path::new(""));
    let mount = root.join(mount.trim_start_matches('/'));
    let own = mount.join(below);
    let folders = own.ancestors().take_while(|folder| folder.starts_with(&mount));
    Some((version, folders.map(Path::to_owned).collect()))
}

/// The process's path in the hierarchy of this controller.
fn own(groups: &str, controller: &str) -> Option<(Version, String)> {
    let mut unified = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|name| name == controller) {
            return Some((Version::One, path.to_owned()));
        }
        if number == "0" && controllers.is_empty() {
            unified = Some((Version::Two, path.to_owned()));
        }
    }
    unified
}

/// The group at which the hierarchy is mounted, and where, as proc(5) tells it.
fn mounted(mounts: &str, version: Version, controller: &str) -> Option<(String, String)> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1).unwrap_or_default());
        let right = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|name| name == controller),
            Version::Two => kind == "cgroup2",
        };
        let mut fields = mount.split(' ').skip(3);
        right.then_some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    })
}

fn usual(version: Version, controller: &str) -> String {
    match version {
        Version::One => format!("/sys/fs/cgroup/{controller}"),
        Version::Two => "/sys/fs/cgroup".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of the kernel's below a root.
    pub(in crate::system) fn file(root: &Path, below: &str, text: &str) {
        let path = root.join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn found(groups: &str, mounts: &str, controller: &str) -> Option<(Version, Vec<String>)> {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "proc/self/cgroup", groups);
        file(root.path(), "proc/self/mountinfo", mounts);
        let (version, folders) = folders(root.path(), controller)?;
        let below = |folder: &PathBuf| folder.strip_prefix(root.path()).unwrap().display().to_string();
        Some((version, folders.iter().map(below).collect()))
    }

    #[test]
    fn groups_are_found_as_systemd_containers_and_old_systems_mount_them() {
        const ONE: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                           32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        const TWO: &str = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = format!("{ONE}41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
        let docker = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n";
        for (groups, mounts, controller, version, expected) in [
            (
                "0::/system.slice/recurved.service\n",
                TWO,
                "memory",
                Version::Two,
                &["sys/fs/cgroup/system.slice/recurved.service", "sys/fs/cgroup/system.slice", "sys/fs/cgroup"][..],
            ),
            (
                "4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/\n",
                &hybrid,
                "memory",
                Version::One,
                &["sys/fs/cgroup/memory/a/b", "sys/fs/cgroup/memory/a", "sys/fs/cgroup/memory"],
            ),
            (
                "4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/\n",
                &hybrid,
                "cpu",
                Version::One,
                &["sys/fs/cgroup/cpu,cpuacct/c", "sys/fs/cgroup/cpu,cpuacct"],
            ),
            (
                "4:memory:/docker/ab/c\n",
                docker,
                "memory",
                Version::One,
                &["sys/fs/cgroup/memory/c", "sys/fs/cgroup/memory"],
            ),
            ("4:memory:/\n", docker, "memory", Version::One, &["sys/fs/cgroup/memory"]),
            ("4:memory:/a\n", "", "memory", Version::One, &["sys/fs/cgroup/memory/a", "sys/fs/cgroup/memory"]),
            ("0::/\n", "", "cpu", Version::Two, &["sys/fs/cgroup"]),
        ] {
            let (seen, folders) = found(groups, mounts, controller).unwrap();
            assert_eq!(
                (seen, folders),
                (version, expected.iter().map(ToString::to_string).collect()),
                "{groups}{mounts}"
            );
        }
        assert_eq!(found("4:pids:/a\n", TWO, "memory"), None);
        assert_eq!(found("", "", "memory"), None);
    }
}
