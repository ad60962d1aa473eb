//! `generation.json`: how the model wants to be sampled when a request says nothing.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::BundleError;
use crate::json;
use crate::layout::file;

/// The format of `generation.json` that this version writes and reads.
pub const GENERATION_FORMAT: u32 = 1;
/// Allowed repetition penalties. Logits are divided and multiplied by them: nearer to 0, finite logits would overflow.
pub const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;

/// The file `generation.json`. A field that is absent leaves the choice to the daemon. Which tokens begin and end a
/// sequence is in `recurve.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// [`GENERATION_FORMAT`].
    pub format: u32,
    /// 0 takes the likeliest token; 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens are considered; 0 means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// The likeliest tokens that together have this probability are considered; above 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Tokens below this share of the likeliest token's probability are not considered; 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that occurred; 0.01 to 100, 1 changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Most tokens of an answer; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

impl GenerationDefaults {
    /// Nothing chosen.
    pub fn new() -> Self {
        Self { format: GENERATION_FORMAT, ..Self::default() }
    }

    /// Parses and checks the file's bytes.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        json::check_format(file::GENERATION, bytes, GENERATION_FORMAT)?;
        let defaults: Self = json::parse(file::GENERATION, bytes)?;
        defaults.check()?;
        Ok(defaults)
    }

    /// Checks that every value is one that a request could give.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), BundleError> {
        let check = |field: &str, value: Option<f32>, good: fn(f32) -> bool, allowed: &str| match value {
            Some(value) if !good(value) => Err(refused(field, value, allowed)),
            _ => Ok(()),
        };
        check("temperature", self.temperature, |v| (0.0..=100.0).contains(&v), "0 to 100")?;
        check("top_p", self.top_p, |v| v > 0.0 && v <= 1.0, "above 0, at most 1")?;
        check("min_p", self.min_p, |v| (0.0..=1.0).contains(&v), "0 to 1")?;
        let penalty = |v: f32| REPETITION_PENALTY.contains(&v);
        check("repetition_penalty", self.repetition_penalty, penalty, "0.01 to 100")?;
        match self.max_tokens {
            Some(0) => Err(refused("max_tokens", 0, "at least 1")),
            _ => Ok(()),
        }
    }
}

fn refused(field: &str, value: impl ToString, allowed: &str) -> BundleError {
    BundleError::Value {
        file: file::GENERATION.to_owned(),
        field: field.to_owned(),
        value: value.to_string(),
        allowed: allowed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_stay_absent() {
        let defaults = GenerationDefaults { temperature: Some(0.7), top_k: Some(0), ..GenerationDefaults::new() };
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(text, r#"{"format":1,"temperature":0.7,"top_k":0}"#);
        assert_eq!(GenerationDefaults::parse(text.as_bytes()).unwrap(), defaults);
    }

    #[test]
    fn wrong_values_are_named() {
        for (field, json) in [
            ("temperature", r#"{"format":1,"temperature":-0.1}"#),
            ("top_p", r#"{"format":1,"top_p":0}"#),
            ("min_p", r#"{"format":1,"min_p":1.5}"#),
            ("repetition_penalty", r#"{"format":1,"repetition_penalty":0}"#),
            ("repetition_penalty", r#"{"format":1,"repetition_penalty":1e-38}"#),
            ("max_tokens", r#"{"format":1,"max_tokens":0}"#),
        ] {
            let error = GenerationDefaults::parse(json.as_bytes()).unwrap_err();
            let BundleError::Value { field: named, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(named, field);
        }
    }
}
