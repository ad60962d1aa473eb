//! Which files of a checkpoint's folder hold its weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::absent;
use crate::checkpoint::CheckpointError;

/// Largest index that is read.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const INDEX: &str = ".safetensors.index.json";
const WEIGHTS: &str = ".safetensors";

/// Files of weights in other formats, by the end of their names.
const OTHER_FORMATS: [&str; 8] = [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf"];

/// The file that lists the tensors, and the files that hold them.
///
/// `model.safetensors` comes first, then `model.safetensors.index.json`, as in transformers. Without either, the folder must
/// leave no choice: one index, or one file, or one complete series `NAME-00001-of-00002.safetensors`.
pub(crate) fn find(dir: &Path) -> Result<(PathBuf, Vec<PathBuf>), CheckpointError> {
    let names = names(dir)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("model.safetensors") {
        let single = dir.join("model.safetensors");
        return Ok((single.clone(), vec![single]));
    }
    if has("model.safetensors.index.json") {
        return indexed(dir, "model.safetensors.index.json");
    }
    let ending = |end: &str| -> Vec<&str> {
        names.iter().map(String::as_str).filter(|name| name.ends_with(end) && !name.starts_with('.')).collect()
    };
    let ambiguous = |found: &[&str]| CheckpointError::Ambiguous { dir: dir.to_owned(), names: found.join(", ") };
    match ending(INDEX).as_slice() {
        [] => {}
        [index] => return indexed(dir, index),
        several => return Err(ambiguous(several)),
    }
    let weights = ending(WEIGHTS);
    if let Some(adapter) = weights.iter().find(|name| name.starts_with("adapter_")) {
        return Err(CheckpointError::Adapter { path: dir.join(adapter) });
    }
    match weights.as_slice() {
        [] => Err(CheckpointError::NoWeights { dir: dir.to_owned(), instead: other_format(&names) }),
        [single] if series(single).is_none_or(|(_, _, count)| count == 1) => {
            Ok((dir.join(single), vec![dir.join(single)]))
        }
        several => match complete(several) {
            Some(Ok(())) => Ok((dir.to_owned(), several.iter().map(|name| dir.join(name)).collect())),
            Some(Err(missing)) => Err(CheckpointError::NoShard { path: dir.join(missing) }),
            None => Err(ambiguous(several)),
        },
    }
}

/// The names in a folder that are text, in order; links count, wherever they point.
fn names(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let unreadable = |source| CheckpointError::Unreadable { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The name of a series, the number of this file and how many there are: `model-00001-of-00002.safetensors`.
fn series(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = name.strip_suffix(WEIGHTS)?.rsplit_once("-of-")?;
    let (series, number) = rest.rsplit_once('-')?;
    Some((series, number.parse().ok()?, count.parse().ok()?))
}

/// Whether these are one series: all of it, or all but this file.
fn complete(names: &[&str]) -> Option<Result<(), String>> {
    let (series_name, _, count) = series(names.first()?)?;
    let mut numbers = Vec::new();
    for name in names {
        let (same, number, total) = series(name)?;
        if (same, total) != (series_name, count) {
            return None;
        }
        numbers.push(number);
    }
    let missing = (1..=count).find(|number| !numbers.contains(number));
    Some(missing.map_or(Ok(()), |number| Err(format!("{series_name}-{number:05}-of-{count:05}{WEIGHTS}"))))
}

/// A file of weights that another format wrote.
fn other_format(names: &[String]) -> Option<String> {
    let other = |name: &&String| OTHER_FORMATS.iter().any(|end| name.ends_with(end)) && *name != "training_args.bin";
    names.iter().find(other).cloned()
}

/// The index and the files that it names.
fn indexed(dir: &Path, index: &str) -> Result<(PathBuf, Vec<PathBuf>), CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = dir.join(index);
    let unreadable = |source| CheckpointError::Unreadable { path: index.clone(), source };
    let malformed = |reason: String| CheckpointError::Malformed { path: index.clone(), reason };
    let size = fs::metadata(&index).map_err(|source| gone(&index, source))?.len();
    if size > MAX_INDEX_BYTES {
        return Err(malformed(format!("has {size} bytes, and an index at most {MAX_INDEX_BYTES}")));
    }
    let bytes = fs::read(&index).map_err(unreadable)?;
    if absent::is_pointer(&bytes) {
        return Err(malformed(absent::POINTER.to_owned()));
    }
    let parsed: Index = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("is not an index of safetensors files: {error}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let mut paths = Vec::new();
    for name in names {
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(malformed(format!("names the file `{name}`; only files beside the index are allowed")));
        }
        paths.push(dir.join(name));
    }
    if paths.is_empty() {
        return Err(malformed("its weight_map is empty".to_owned()));
    }
    Ok((index, paths))
}

/// The error for a file that cannot be opened.
pub(crate) fn gone(path: &Path, source: std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    match absent::dangling(&path) {
        Some(reason) => CheckpointError::Malformed { path, reason },
        None => CheckpointError::Unreadable { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let index = r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;
            fs::write(dir.path().join(name), index).unwrap();
        }
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        find(dir.path()).map(|(_, paths)| paths.iter().map(name).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_that_leaves_no_choice_is_taken() {
        let single = "model.safetensors";
        let cases: [(&[&str], &[&str]); 6] = [
            (&[single, "other.safetensors", "model.safetensors.index.json"], &[single]),
            (&["weights.safetensors", "README.md"], &["weights.safetensors"]),
            (&["model-00001-of-00001.safetensors"], &["model-00001-of-00001.safetensors"]),
            (
                &["m-00002-of-00002.safetensors", "m-00001-of-00002.safetensors"],
                &["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"],
            ),
            (&["m.safetensors.index.json", "x-1.safetensors"], &["x-1.safetensors", "x-2.safetensors"]),
            (&["model.safetensors.index.json", "z.safetensors"], &["x-1.safetensors", "x-2.safetensors"]),
        ];
        for (names, expected) in cases {
            assert_eq!(found(names).unwrap(), expected, "{names:?}");
        }
    }

    #[test]
    fn any_other_is_named() {
        let cases: [(&[&str], &str); 8] = [
            (&[], "has no weights"),
            (&["a.safetensors", "b.safetensors"], "a.safetensors, b.safetensors"),
            (&["a.safetensors.index.json", "b.safetensors.index.json"], "a.safetensors.index.json, b."),
            (&["m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"], "m-00002-of-00003.safetensors: "),
            (&["m-00001-of-00002.safetensors"], "m-00002-of-00002.safetensors: "),
            (&["m-00001-of-00002.safetensors", "other.safetensors"], "m-00001-of-00002.safetensors, other"),
            (&["pytorch_model.bin", "training_args.bin"], "pytorch_model.bin"),
            (&["adapter_model.safetensors"], "merge_and_unload"),
        ];
        for (names, part) in cases {
            let error = found(names).unwrap_err();
            assert!(error.contains(part), "{names:?}: {error}");
        }
    }
}
