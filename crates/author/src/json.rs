//! The small files of a checkpoint: bounded, and read field by field.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use recurve_model::absent;
use serde_json::{Map, Value};

use crate::error::ExportError;

/// Most bytes of a small file.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// Reads a file of at most `limit` bytes; `None` when there is none. A link to nothing and a pointer of Git LFS are errors.
pub(crate) fn read_optional(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ExportError> {
    let unreadable = |source| ExportError::Unreadable { path: path.to_owned(), source };
    let malformed = |problem| ExportError::Malformed { path: path.to_owned(), problem };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return absent::dangling(path).map_or(Ok(None), |problem| Err(malformed(problem)));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let size = file.metadata().map_err(unreadable)?.len();
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(ExportError::TooLarge { path: path.to_owned(), size, limit });
    }
    if absent::is_pointer(&bytes) {
        return Err(malformed(absent::POINTER.to_owned()));
    }
    Ok(Some(bytes))
}

/// Reads a text file of at most [`MAX_BYTES`]; `None` when there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ExportError> {
    let Some(bytes) = read_optional(path, MAX_BYTES)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| ExportError::Malformed {
        path: path.to_owned(),
        problem: format!("is not UTF-8 text: {error}"),
    })?;
    Ok(Some(text))
}

/// A JSON object from a file. A field that is `null` counts as absent.
pub(crate) struct Object {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Object {
    /// Reads the file; an object without fields when there is none.
    pub(crate) fn read_optional(path: &Path) -> Result<Self, ExportError> {
        let malformed = |problem| ExportError::Malformed { path: path.to_owned(), problem };
        let fields = match read_optional(path, MAX_BYTES)? {
            None => Map::new(),
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => return Err(malformed("is not a JSON object".to_owned())),
                Err(error) => return Err(malformed(format!("is not JSON: {error}"))),
            },
        };
        Ok(Self { path: path.to_owned(), fields })
    }

    /// The field's value.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// The field's value as `convert` makes it; an error that says what is `allowed` when that is nothing.
    pub(crate) fn convert<T>(
        &self,
        field: &str,
        allowed: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ExportError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| self.refuse(field, value, allowed))
    }

    /// The error for a value that is not allowed.
    pub(crate) fn refuse(&self, field: &str, value: &Value, allowed: &str) -> ExportError {
        let text = value.to_string();
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        ExportError::Field {
            path: self.path.clone(),
            field: field.to_owned(),
            value: shown,
            allowed: allowed.to_owned(),
        }
    }
}
