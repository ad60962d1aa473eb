//! Every change that the store makes to a file: durable when the function returns.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags};

use super::error::StoreError;
use super::fault;

/// Does one thing to a file, or to a folder; a test may have it fail, or the power cut before it.
fn step<T>(action: &'static str, path: &Path, work: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
    fault::point(action, path).and_then(|()| work()).map_err(|source| StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    })
}

/// Makes a folder and those around it.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        make_folder(parent)?;
    }
    step("make the folder", path, || fs::create_dir_all(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The file that is locked while a daemon runs. One that is there is opened on a disk that takes no more writes, too.
pub(super) fn open_lock(path: &Path) -> Result<File, StoreError> {
    step("open", path, || {
        let writable = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        writable.or_else(|error| File::open(path).map_err(|_| error))
    })
}

/// A file that bytes are added to from some place on; what is there stays.
pub(super) fn open_for_receiving(path: &Path) -> Result<File, StoreError> {
    step("open", path, || OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path))
}

/// A file whose end is written to.
pub(super) fn open_for_appending(path: &Path) -> Result<File, StoreError> {
    let file = step("open", path, || OpenOptions::new().create(true).read(true).append(true).open(path))?;
    path.parent().map_or(Ok(()), sync_folder)?;
    Ok(file)
}

/// Writes at the file's place and syncs.
pub(super) fn append(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), StoreError> {
    write(file, bytes, path)?;
    sync(file, path)
}

/// Writes without syncing: [`place`] does that when all is there.
pub(super) fn write(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), StoreError> {
    step("write", path, || {
        let part = fault::part_of(bytes, path);
        file.write_all(part)?;
        if part.len() < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    })
}

/// Cuts a file off.
pub(super) fn truncate(file: &File, length: u64, path: &Path) -> Result<(), StoreError> {
    step("shorten", path, || file.set_len(length))
}

/// Gives a written file its name: at every instant there is all of it under `to`, or what was there before.
pub(super) fn place(file: &File, from: &Path, to: &Path) -> Result<(), StoreError> {
    sync(file, from)?;
    step("rename to", to, || {
        fault::renames(from, to);
        fs::rename(from, to)
    })?;
    to.parent().map_or(Ok(()), sync_folder)?;
    // The name that is gone may come back after a power cut; whoever finds it there looks at it again.
    if from.parent() == to.parent() { Ok(()) } else { from.parent().map_or(Ok(()), sync_folder) }
}

/// Replaces a file's content as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let mut file = step("make", &new, || File::create(&new))?;
    write(&mut file, bytes, &new)?;
    place(&file, &new, path)
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    unlink(path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn unlink(path: &Path) -> Result<(), StoreError> {
    step("remove", path, || {
        fault::removes(path);
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// Makes an empty folder for what need not survive.
pub(crate) fn make_scratch(path: &Path) -> Result<(), StoreError> {
    remove_scratch(path)?;
    step("make the folder", path, || fs::create_dir(path))
}

/// Writes a file of such a folder.
pub(crate) fn write_scratch(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    step("write", path, || fs::write(path, bytes))
}

/// Removes such a folder, if it is there.
pub(crate) fn remove_scratch(path: &Path) -> Result<(), StoreError> {
    step("remove", path, || match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Removes every file of a folder that is not named, and gives their bytes.
pub(super) fn remove_others(folder: &Path, named: &BTreeSet<String>) -> Result<u64, StoreError> {
    let mut freed = 0;
    for entry in step("read", folder, || fs::read_dir(folder))? {
        let entry = step("read", folder, || entry)?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            let path = entry.path();
            freed += length(&path).unwrap_or(0);
            unlink(&path)?;
        }
    }
    sync_folder(folder)?;
    Ok(freed)
}

/// A small file's content.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    step("read", path, || fs::read(path))
}

/// A small file's content; none where it is not there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    step("read", path, || match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
}

/// Opens a file for reading; none where it is not there. A symbolic link is not followed.
pub(super) fn open_if_there(path: &Path) -> Result<Option<File>, StoreError> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    step("open", path, || match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
}

/// What the file system says of an open file.
pub(super) fn metadata(file: &File, path: &Path) -> Result<Metadata, StoreError> {
    step("look at", path, || file.metadata())
}

/// Names and sizes of the regular files in a folder.
pub(super) fn files(folder: &Path) -> Result<Vec<(String, u64)>, StoreError> {
    let mut files = Vec::new();
    for entry in step("read", folder, || fs::read_dir(folder))? {
        let entry = step("read", folder, || entry)?;
        if let (Ok(name), Some(length)) = (entry.file_name().into_string(), length(&entry.path())) {
            files.push((name, length));
        }
    }
    Ok(files)
}

/// Copies a small damaged file to `NAME.damaged-N` beside it; returns where it is.
pub(super) fn keep_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let bytes = read(path)?;
    let named = |number: u32| PathBuf::from(format!("{}.damaged-{number}", path.display()));
    let aside = (1..).map(named).find(|aside| aside.symlink_metadata().is_err()).unwrap_or_else(|| named(0));
    replace(&aside, &bytes)?;
    Ok(aside)
}

/// Has the system drop a file from the page cache, where no process has it mapped.
pub(super) fn drop_from_cache(path: &Path) {
    // Where it cannot, the cache is fuller than it need be.
    let _ = File::open(path).map(|file| rustix::fs::fadvise(&file, 0, None, Advice::DontNeed));
}

/// Whether an open file is the one that has this name now.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let found = match path.symlink_metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(false),
        found => found?,
    };
    let open = file.metadata()?;
    Ok((open.dev(), open.ino()) == (found.dev(), found.ino()))
}

/// Bytes of a regular file; none where there is no such file.
pub(crate) fn length(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().filter(fs::Metadata::is_file).map(|found| found.len())
}

/// Bytes that this process may write.
pub(super) fn free(path: &Path) -> Result<u64, StoreError> {
    let disk = step("look at", path, || Ok(rustix::fs::statvfs(path)?))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn sync(file: &File, path: &Path) -> Result<(), StoreError> {
    step("sync", path, || file.sync_all())?;
    fault::synced(path);
    Ok(())
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    step("sync", path, || File::open(path).and_then(|folder| folder.sync_all()))?;
    fault::synced(path);
    Ok(())
}
