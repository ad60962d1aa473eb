//! The fields of a `config.json`, each read with an error that names it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::ConfigError;

/// An object of a configuration. A field that is `null` counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) object: &'a Map<String, Value>,
    /// Only used in errors.
    pub(crate) path: &'a Path,
}

impl Fields<'_> {
    /// The field, unless it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    pub(crate) fn size(
        &self,
        field: &'static str,
        default: Option<usize>,
        least: u64,
        most: u64,
    ) -> Result<usize, ConfigError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(field)),
            (Some(value), _) => match value.as_u64() {
                Some(size) if (least..=most).contains(&size) => Ok(size as usize),
                _ => Err(self.invalid(field, value, format!("it must be a whole number from {least} to {most}"))),
            },
        }
    }

    pub(crate) fn number(
        &self,
        field: &'static str,
        default: Option<f64>,
        least: f64,
        most: f64,
    ) -> Result<f64, ConfigError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(field)),
            (Some(value), _) => match value.as_f64() {
                Some(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(self.invalid(field, value, format!("it must be a number from {least} to {most}"))),
            },
        }
    }

    pub(crate) fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.invalid(field, other, "it must be true or false")),
        }
    }

    pub(crate) fn missing(&self, field: &'static str) -> ConfigError {
        ConfigError::Missing { path: self.path.to_owned(), field }
    }

    pub(crate) fn invalid(&self, field: &str, value: impl ToString, allowed: impl Into<String>) -> ConfigError {
        // A value may be anything that JSON can hold: show its beginning.
        let mut value = value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(80) {
            value.truncate(cut);
            value.push('…');
        }
        ConfigError::Invalid { path: self.path.to_owned(), field: field.to_owned(), value, allowed: allowed.into() }
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
