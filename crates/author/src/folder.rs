//! The folder that holds a checkpoint's files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ExportError;

/// The given folder, or the snapshot in it where it is a model's entry in Hugging Face's cache
/// (`models--<owner>--<model>`, with one folder of links in `snapshots` for each revision).
///
/// # Errors
/// There are several snapshots.
pub(crate) fn of_checkpoint(dir: &Path) -> Result<PathBuf, ExportError> {
    if dir.join("config.json").symlink_metadata().is_ok() {
        return Ok(dir.to_owned());
    }
    let entries = fs::read_dir(dir.join("snapshots")).into_iter().flatten().flatten();
    let mut snapshots: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    snapshots.sort();
    match snapshots.as_slice() {
        [] => Ok(dir.to_owned()),
        [snapshot] => Ok(snapshot.clone()),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            let problem = format!("has several snapshots; give one of them: {}", names.join(", "));
            Err(ExportError::Malformed { path: dir.to_owned(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_cache_stands_for_its_only_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("models--a--b");
        let snapshot = |name: &str| entry.join("snapshots").join(name);
        fs::create_dir_all(snapshot("0123")).unwrap();
        assert_eq!(of_checkpoint(&entry).unwrap(), snapshot("0123"));
        fs::create_dir_all(snapshot("4567")).unwrap();
        let error = of_checkpoint(&entry).unwrap_err().to_string();
        assert!(error.contains("snapshots/0123, ") && error.contains("snapshots/4567"), "{error}");
        fs::write(entry.join("config.json"), "{}").unwrap();
        assert_eq!(of_checkpoint(&entry).unwrap(), entry);
        assert_eq!(of_checkpoint(dir.path()).unwrap(), dir.path());
    }
}
