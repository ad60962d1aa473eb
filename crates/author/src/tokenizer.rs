//! The checkpoint's tokenizer and chat template.

use std::collections::HashMap;
use std::path::Path;

use recurve_model::ModelConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::pipeline::{EncodeOptions, PipelineTokenizer};

use crate::error::ExportError;
use crate::json::{self, Object};

/// Most bytes of a `tokenizer.json`.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// A checkpoint's tokenizer.
pub(crate) struct Tokenizer {
    /// `tokenizer.json` as it is.
    pub(crate) file: Vec<u8>,
    /// What it says.
    pub(crate) parsed: PipelineTokenizer,
}

/// Reads `tokenizer.json` and checks that it is a tokenizer whose every token the model knows.
pub(crate) fn read(dir: &Path, config: &ModelConfig) -> Result<Tokenizer, ExportError> {
    let path = dir.join("tokenizer.json");
    let Some(bytes) = json::read_optional(&path, MAX_TOKENIZER_BYTES)? else {
        return Err(ExportError::NoTokenizer { path });
    };
    let refuse = |problem: String| ExportError::Tokenizer { path: path.clone(), problem };
    let not_a_tokenizer = |error: &dyn std::fmt::Display| refuse(format!("is not a tokenizer: {error}"));
    let text = std::str::from_utf8(&bytes).map_err(|error| not_a_tokenizer(&error))?;
    let canonical = tokenizers::canonicalize_str(text).map_err(|error| not_a_tokenizer(&error))?;
    let tokenizer = tokenizers::from_json(&canonical).map_err(|error| not_a_tokenizer(&error))?;
    // A pre-tokenizer that can be read but not run shows only when it is used.
    tokenizer
        .encode_into("a", &EncodeOptions::default(), &mut Vec::new())
        .map_err(|error| refuse(format!("cannot be used: {error}")))?;
    let ids: TokenIds = serde_json::from_str(&canonical).map_err(|error| not_a_tokenizer(&error))?;
    match ids.highest() {
        Some(id) if id >= config.vocab_size as u64 => Err(refuse(format!(
            "has a token with the id {id}, but config.json has a vocab_size of {}: the files are not of one checkpoint",
            config.vocab_size
        ))),
        None => Err(refuse("has no tokens".to_owned())),
        Some(_) => Ok(Tokenizer { file: bytes, parsed: tokenizer }),
    }
}

/// The part of a `tokenizer.json` that assigns ids.
#[derive(Deserialize)]
struct TokenIds {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model {
    vocab: Vocabulary,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    /// Each token with its id.
    Named(HashMap<String, u64>),
    /// In the order of the ids, as Unigram has it.
    Listed(Vec<IgnoredAny>),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
}

impl TokenIds {
    fn highest(&self) -> Option<u64> {
        let model = match &self.model.vocab {
            Vocabulary::Named(tokens) => tokens.values().copied().max(),
            Vocabulary::Listed(tokens) => (tokens.len() as u64).checked_sub(1),
        };
        let added = self.added_tokens.iter().map(|token| token.id).max();
        model.max(added)
    }
}

/// The chat template, if there is one: the file `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`,
/// which is a text, or a list of named ones of which "default" counts.
pub(crate) fn chat_template(dir: &Path) -> Result<Option<String>, ExportError> {
    if let Some(text) = json::read_text(&dir.join("chat_template.jinja"))? {
        return Ok(Some(text));
    }
    let file = Object::read_optional(&dir.join("tokenizer_config.json"))?;
    let allowed = "a text, or a list of {\"name\", \"template\"} with one named \"default\"";
    file.convert("chat_template", allowed, |value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let entry = list.iter().find(|entry| entry["name"] == "default")?;
            entry["template"].as_str().map(str::to_owned)
        }
        _ => None,
    })
}
