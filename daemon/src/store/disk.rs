//! Every change that the store makes to a file: durable when the function returns.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use super::error::StoreError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// Makes a folder and those around it.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(failed("make the folder", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The file that is locked while a daemon runs.
pub(super) fn open_lock(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed("open", path))
}

/// A file whose end is written to.
pub(super) fn open_for_appending(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed("open", path))?;
    path.parent().map_or(Ok(()), sync_folder)?;
    Ok(file)
}

/// Writes at the file's place and syncs.
pub(super) fn append(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), StoreError> {
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed("write", path))
}

/// Writes without syncing: [`place`] does that when all is there.
pub(super) fn write(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), StoreError> {
    file.write_all(bytes).map_err(failed("write", path))
}

/// Cuts a file off.
pub(super) fn truncate(file: &File, length: u64, path: &Path) -> Result<(), StoreError> {
    file.set_len(length).map_err(failed("shorten", path))
}

/// Gives a written file its name: at every instant there is all of it under `to`, or what was there before.
pub(super) fn place(file: &File, from: &Path, to: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(failed("sync", from))?;
    fs::rename(from, to).map_err(failed("rename to", to))?;
    to.parent().map_or(Ok(()), sync_folder)?;
    from.parent().map_or(Ok(()), sync_folder)
}

/// Replaces a file's content as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let mut file = File::create(&new).map_err(failed("make", &new))?;
    write(&mut file, bytes, &new)?;
    place(&file, &new, path)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => path.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes an empty folder for what need not survive.
pub(crate) fn make_scratch(path: &Path) -> Result<(), StoreError> {
    remove_scratch(path)?;
    fs::create_dir(path).map_err(failed("make the folder", path))
}

/// Writes a file of such a folder.
pub(crate) fn write_scratch(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    fs::write(path, bytes).map_err(failed("write", path))
}

/// Removes such a folder, if it is there.
pub(crate) fn remove_scratch(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes every file of a folder that is not named, and gives their bytes.
pub(super) fn remove_others(folder: &Path, named: &BTreeSet<String>) -> Result<u64, StoreError> {
    let mut freed = 0;
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let entry = entry.map_err(failed("read", folder))?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            let path = entry.path();
            freed += length(&path).unwrap_or(0);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    sync_folder(folder)?;
    Ok(freed)
}

/// A small file's content.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(failed("read", path))
}

/// A small file's content; none where it is not there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Bytes of a regular file; none where there is no such file.
pub(crate) fn length(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().filter(fs::Metadata::is_file).map(|found| found.len())
}

/// Bytes that this process may write.
pub(super) fn free(path: &Path) -> Result<u64, StoreError> {
    let disk = rustix::fs::statvfs(path).map_err(|error| failed("look at", path)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}
