//! Where a bundle is written, and how it takes its place at once.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use recurve_bundle::{Descriptor, Index, LAYOUT_VERSION, LayoutMarker, MEDIA_INDEX};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::pack::{PackError, compact};

/// Where blobs lie in a layout.
pub(crate) const BLOBS: &str = "blobs/sha256";
/// The file that tells that a directory is a layout.
const MARKER: &str = "oci-layout";

/// The output's path, and the directory beside it that is filled first.
#[derive(Debug)]
pub(crate) struct Output {
    out: PathBuf,
    parent: PathBuf,
    staging: Staging,
    replace: bool,
    marker: &'static str,
}

/// The directory that is filled first.
#[derive(Debug)]
enum Staging {
    /// Removed if it never takes the output's place.
    Once(TempDir),
    /// Kept for the next attempt. Locked: nobody else fills it.
    Kept {
        /// Where it is.
        dir: PathBuf,
        _lock: File,
    },
}

impl Drop for Staging {
    /// A folder that is kept and holds nothing is of no use to the next attempt.
    fn drop(&mut self) {
        if let Self::Kept { dir, .. } = self {
            // Each goes only if it is empty; the innermost first.
            for folder in [dir.join(BLOBS), dir.join("blobs"), dir.clone()] {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

impl Staging {
    fn path(&self) -> &Path {
        match self {
            Self::Once(dir) => dir.path(),
            Self::Kept { dir, .. } => dir,
        }
    }
}

impl Output {
    /// Checks a bundle's path and makes `.<name>.partial-<random>` beside it, which is removed if it never takes the output's
    /// place.
    pub(crate) fn prepare(out: &Path, overwrite: bool) -> Result<Self, PackError> {
        Self::prepare_marked(out, overwrite, MARKER)
    }

    /// The same for any folder that is only replaced if it has a file with this name.
    pub(crate) fn prepare_marked(out: &Path, overwrite: bool, marker: &'static str) -> Result<Self, PackError> {
        let (name, parent, replace) = check(out, overwrite, marker)?;
        let staging = tempfile::Builder::new()
            .prefix(&hidden(name, ".partial-"))
            // The bundle is for daemons that run as other users; the umask still applies.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(PackError::io("write in", parent))?;
        Ok(Self { out: out.to_owned(), parent: parent.to_owned(), staging: Staging::Once(staging), replace, marker })
    }

    /// The same with `.<name>.pulling`, which stays for the next attempt until it takes the output's place.
    pub(crate) fn resume(out: &Path, overwrite: bool) -> Result<Self, PackError> {
        let (name, parent, replace) = check(out, overwrite, MARKER)?;
        let staging = parent.join(hidden(name, ".pulling"));
        fs::create_dir_all(&staging).map_err(PackError::io("create", &staging))?;
        let lock = File::open(&staging).map_err(PackError::io("open", &staging))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| PackError::Output {
            path: out.to_owned(),
            problem: "is being written by another process: wait for that, or give another --out",
        })?;
        Ok(Self {
            out: out.to_owned(),
            parent: parent.to_owned(),
            staging: Staging::Kept { dir: staging, _lock: lock },
            replace,
            marker: MARKER,
        })
    }

    /// The directory to fill.
    pub(crate) fn staging(&self) -> &Path {
        self.staging.path()
    }

    /// The output's path.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Makes sure that `bytes` more fit on the disk.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), PackError> {
        let path = self.staging();
        let disk = rustix::fs::statvfs(path).map_err(|error| PackError::io("look at", path)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes <= free {
            return Ok(());
        }
        Err(PackError::NoRoom { path: self.parent.clone(), needed: bytes, free })
    }

    /// Writes marker and index beside the blobs, syncs, and puts the directory in the output's place.
    pub(crate) fn finish(self, manifests: Vec<Descriptor>) -> Result<(), PackError> {
        let index = Index { schema_version: 2, media_type: Some(MEDIA_INDEX.to_owned()), manifests };
        let marker = LayoutMarker { image_layout_version: LAYOUT_VERSION.to_owned() };
        self.top("index.json", &compact(&index, "index.json")?)?;
        self.top(MARKER, &compact(&marker, MARKER)?)?;
        for dir in [self.staging().join(BLOBS), self.staging().join("blobs"), self.staging().to_owned()] {
            sync_directory(&dir)?;
        }
        self.commit()
    }

    /// Writes a file at the layout's top.
    fn top(&self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let path = self.staging().join(name);
        let write = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
        File::create(&path).and_then(write).map_err(PackError::io("write", &path))
    }

    /// Puts the filled directory in the output's place. What was there is removed after that.
    pub(crate) fn commit(self) -> Result<(), PackError> {
        let failed = |errno: Errno| PackError::io("rename the finished folder to", &self.out)(errno.into());
        let flags = if self.replace { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, self.staging.path(), CWD, &self.out, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(PackError::Exists { path: self.out }),
            // A file system that knows neither flag, such as some network and FUSE ones.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.swap_in_steps()?,
            Err(errno) => return Err(failed(errno)),
        }
        sync_directory(&self.parent)?;
        // After an exchange the staging path names the old bundle; otherwise it names nothing, which is as good.
        if let (Staging::Kept { dir, .. }, true) = (&self.staging, self.replace) {
            let _ = fs::remove_dir_all(dir);
        }
        drop(self.staging);
        Ok(())
    }

    /// Moves the old bundle aside and the new one in. Between the two renames there is no bundle at the output's path; if
    /// the second one fails, the old bundle returns.
    fn swap_in_steps(&self) -> Result<(), PackError> {
        let moved = |from: &Path, to: &Path| fs::rename(from, to).map_err(PackError::io("rename to", to));
        if !self.replace {
            check_existing(&self.out, false, self.marker)?;
            return moved(self.staging.path(), &self.out);
        }
        let name = self.out.file_name().unwrap_or(OsStr::new("bundle"));
        let aside = tempfile::Builder::new()
            .prefix(&hidden(name, ".replaced-"))
            .tempdir_in(&self.parent)
            .map_err(PackError::io("write in", &self.parent))?;
        let old = aside.path().join("bundle");
        moved(&self.out, &old)?;
        moved(self.staging.path(), &self.out).inspect_err(|_| {
            if fs::rename(&old, &self.out).is_err() {
                // Better a directory too many than the only bundle lost.
                let _ = aside.keep();
            }
        })
    }
}

/// The output's name, the directory around it, and whether there is something to be replaced.
fn check<'a>(out: &'a Path, overwrite: bool, marker: &str) -> Result<(&'a OsStr, &'a Path, bool), PackError> {
    let refuse = |problem| PackError::Output { path: out.to_owned(), problem };
    let name = out.file_name().ok_or_else(|| refuse("has no name of its own: give the directory to be made"))?;
    let parent = match out.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    if !parent.is_dir() {
        return Err(refuse("the directory around it does not exist: create it first"));
    }
    Ok((name, parent, check_existing(out, overwrite, marker)?))
}

/// Whether there is something to be replaced.
fn check_existing(out: &Path, overwrite: bool, marker: &str) -> Result<bool, PackError> {
    let kind = match out.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PackError::io("look at", out)(error)),
    };
    if !overwrite {
        return Err(PackError::Exists { path: out.to_owned() });
    }
    let empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if kind.is_dir() && (out.join(marker).is_file() || empty()) {
        Ok(true)
    } else {
        Err(PackError::NotABundle { path: out.to_owned() })
    }
}

/// `.<name><suffix>`: hidden, and telling what it belongs to.
fn hidden(name: &OsStr, suffix: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    hidden
}

/// Makes names in a directory survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> Result<(), PackError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(PackError::io("sync", path))
}
