//! A model's name.

use std::path::Path;

use recurve_bundle::{MAX_NAME, NAME_ALLOWED, valid_in_name, valid_name};

use crate::error::ExportError;

/// Checks a name that was given.
pub(crate) fn check(name: &str) -> Result<String, ExportError> {
    if valid_name(name) {
        return Ok(name.to_owned());
    }
    Err(ExportError::Option {
        option: "--name",
        value: name.to_owned(),
        problem: format!("allowed are {NAME_ALLOWED}"),
    })
}

/// The name of a checkpoint in this directory: the directory's own, or the model's where the directory is a snapshot in
/// Hugging Face's cache (`models--<owner>--<model>/snapshots/<revision>`). Other characters become `-`.
pub(crate) fn of_checkpoint(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let part = |path: Option<&Path>| path.and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned);
    let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"));
    let cached = part(snapshots.and_then(Path::parent)).and_then(|name| {
        let (_, model) = name.strip_prefix("models--")?.rsplit_once("--")?;
        Some(model.to_owned())
    });
    let name = cached.or_else(|| part(Some(&dir))).unwrap_or_default();
    let name: String = name.chars().map(|c| if valid_in_name(c) { c } else { '-' }).take(MAX_NAME).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    if name.is_empty() { "recurrent-gemma".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_from_the_directory_or_the_cache_entry() {
        for (dir, name) in [
            ("/models/recurrentgemma-2b-it/", "recurrentgemma-2b-it"),
            ("/hub/models--google--recurrentgemma-2b-it/snapshots/0123abcd", "recurrentgemma-2b-it"),
            ("/hub/snapshots/0123abcd", "0123abcd"),
            ("/x/.my model (2)", "my-model--2-"),
            ("/", "recurrent-gemma"),
            ("/x/é", "recurrent-gemma"),
        ] {
            assert_eq!(of_checkpoint(Path::new(dir)), name, "{dir}");
            assert!(valid_name(name));
        }
    }

    #[test]
    fn a_given_name_is_taken_as_it_is_or_refused() {
        assert_eq!(check("a.B_c-1").unwrap(), "a.B_c-1");
        for name in ["", "a/b", "-a", "é", &"a".repeat(129)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
