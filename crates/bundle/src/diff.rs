//! What one bundle has that another lacks: the blobs that travel when a device that has the first is given the second.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::layout::Bundle;
use crate::manifest::Descriptor;

/// How a file of one bundle stands to the file of the same path in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Both have it, with the same bytes.
    Same,
    /// Both have it, with other bytes.
    Changed,
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
}

impl Change {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// A file of either bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The layer's filepath.
    pub filepath: String,
    /// How it differs.
    pub change: Change,
    /// Bytes in the first bundle; 0 where it is not there.
    pub before: u64,
    /// Bytes in the second bundle; 0 where it is not there.
    pub after: u64,
    /// Bytes of it that a device with the first bundle lacks: `after`, or 0 where a blob of the first has the same bytes,
    /// under whatever path.
    pub travels: u64,
}

/// How two bundles differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Every file of either: those of the second in its order, then those that only the first has.
    pub files: Vec<FileChange>,
    /// Bytes of the second's blobs that the first lacks, manifest and configuration among them, each blob once.
    pub travels: u64,
    /// Bytes of all the second's blobs, each once.
    pub bytes: u64,
}

impl Diff {
    /// Compares by digest: no weight is read.
    pub fn of(before: &Bundle, after: &Bundle) -> Self {
        let there: BTreeSet<Digest> = before.blobs().iter().map(|(_, blob)| blob.digest).collect();
        let lacks = |blob: &Descriptor| !there.contains(&blob.digest);
        let old: BTreeMap<&str, &Descriptor> = by_path(before).collect();
        let new: BTreeSet<&str> = by_path(after).map(|(path, _)| path).collect();
        let mut files: Vec<FileChange> = by_path(after)
            .map(|(path, layer)| {
                let (change, before) = match old.get(path) {
                    None => (Change::Added, 0),
                    Some(old) if old.digest == layer.digest => (Change::Same, old.size),
                    Some(old) => (Change::Changed, old.size),
                };
                let travels = if lacks(layer) { layer.size } else { 0 };
                FileChange { filepath: path.to_owned(), change, before, after: layer.size, travels }
            })
            .collect();
        let removed = by_path(before).filter(|(path, _)| !new.contains(path));
        files.extend(removed.map(|(path, layer)| FileChange {
            filepath: path.to_owned(),
            change: Change::Removed,
            before: layer.size,
            after: 0,
            travels: 0,
        }));
        let all = after.blobs();
        let travels =
            all.iter().filter(|(_, blob)| lacks(blob)).fold(0_u64, |sum, (_, blob)| sum.saturating_add(blob.size));
        Self { files, travels, bytes: after.bytes() }
    }
}

/// The layers of a bundle under their filepaths, in the manifest's order.
fn by_path(bundle: &Bundle) -> impl Iterator<Item = (&str, &Descriptor)> {
    bundle.manifest().layers.iter().map(|layer| (layer.filepath().unwrap_or_default(), layer))
}
