//! Where a bundle is written, and how it takes its place at once.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::pack::PackError;

/// The output's path, and the directory beside it that is filled first and removed if it never takes the output's place.
#[derive(Debug)]
pub(crate) struct Output {
    out: PathBuf,
    parent: PathBuf,
    staging: TempDir,
    replace: bool,
    marker: &'static str,
}

impl Output {
    /// Checks a bundle's path and makes `.<name>.partial-<random>` beside it.
    pub(crate) fn prepare(out: &Path, overwrite: bool) -> Result<Self, PackError> {
        Self::prepare_marked(out, overwrite, "oci-layout")
    }

    /// The same for any folder that is only replaced if it has a file with this name.
    pub(crate) fn prepare_marked(out: &Path, overwrite: bool, marker: &'static str) -> Result<Self, PackError> {
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
        let replace = check_existing(out, overwrite, marker)?;
        let staging = tempfile::Builder::new()
            .prefix(&hidden(name, ".partial-"))
            // The bundle is for daemons that run as other users; the umask still applies.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(PackError::io("write in", parent))?;
        Ok(Self { out: out.to_owned(), parent: parent.to_owned(), staging, replace, marker })
    }

    /// The directory to fill.
    pub(crate) fn staging(&self) -> &Path {
        self.staging.path()
    }

    /// The directory around it.
    pub(crate) fn parent(&self) -> &Path {
        &self.parent
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
