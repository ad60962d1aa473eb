//! The file system that the state directory is on.

use std::path::{Path, PathBuf};

use procfs::process::MountInfo;
use rustix::fs::statvfs;

use super::files::Root;
use super::readings::Filesystem;

/// Where the state directory's file system is mounted.
#[derive(Debug)]
pub(super) struct Mount {
    point: PathBuf,
    kind: String,
}

impl Mount {
    /// The mount that is on top where the directory lies, or will lie.
    pub(super) fn of(root: &Root, state_dir: &Path) -> Option<Self> {
        let dir = existing(state_dir)?;
        let text = root.text("proc/self/mountinfo")?;
        let mounts = text.lines().filter_map(|line| MountInfo::from_line(line).ok());
        let mounts = mounts.map(|mount| Self { point: unescaped(&mount.mount_point), kind: mount.fs_type });
        // Of two at the same place the later one hides the earlier.
        mounts.filter(|mount| dir.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
    }

    /// What it holds now.
    pub(super) fn read(&self, state_dir: &Path) -> Option<Filesystem> {
        let stat = statvfs(existing(state_dir)?).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Filesystem {
            mountpoint: self.point.clone(),
            kind: self.kind.clone(),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            free: bytes(stat.f_bavail),
            reserved: bytes(stat.f_bfree.saturating_sub(stat.f_bavail)),
        })
    }
}

/// The directory, or the nearest one above it that exists.
fn existing(dir: &Path) -> Option<PathBuf> {
    std::path::absolute(dir).ok()?.ancestors().find_map(|dir| dir.canonicalize().ok())
}

/// With the bytes that the kernel writes in octal, as `\040` for a space.
fn unescaped(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) if code.is_ascii() => {
                plain.push(code.into());
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_bytes_are_read() {
        for (text, plain) in
            [("/a\\040b\\134c", "/a b\\c"), ("/plain", "/plain"), ("/odd\\9\\", "/odd\\9\\"), ("/x\\777", "/x\\777")]
        {
            assert_eq!(unescaped(Path::new(text)), Path::new(plain));
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_has_a_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("not/yet");
        assert_eq!(existing(&missing).unwrap(), dir.path().canonicalize().unwrap());
    }
}
