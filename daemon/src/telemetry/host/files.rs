//! Small files of the kernel, under a root.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the machine's files begin.
#[derive(Debug, Clone)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        // Links lead to whole paths: what is found behind them is told from here.
        Self(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    }

    /// The whole path of one that is told from the root, without a slash before it.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// The file's text, as [`text`] reads it.
    pub(super) fn text(&self, below: &str) -> Option<String> {
        text(&self.path(below))
    }

    /// What a folder holds whose names begin like this and end in a number, by that number.
    pub(super) fn numbered(&self, folder: &str, prefix: &str) -> Vec<(u32, PathBuf)> {
        let mut found: Vec<(u32, PathBuf)> = names(&self.path(folder))
            .into_iter()
            .filter_map(|name| Some((name.strip_prefix(prefix)?.parse().ok()?, self.path(folder).join(&name))))
            .collect();
        found.sort();
        found
    }

    /// Where the path really lies, from the root; none where nothing is there.
    pub(super) fn real(&self, path: &Path) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        real.strip_prefix(&self.0).ok().map(Path::to_owned)
    }
}

/// The names in a folder, in order.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The file's text without the space and the zero bytes around it; none where it is empty or cannot be read.
pub(super) fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The number that the file holds.
pub(super) fn number(path: &Path) -> Option<i64> {
    text(path)?.parse().ok()
}

/// The same, where it counts.
pub(super) fn count(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}
