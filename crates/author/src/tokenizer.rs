//! The checkpoint's tokenizer and chat template.

use std::path::{Path, PathBuf};

use recurve_model::ModelConfig;
use recurve_text::{Template, Tokenizer};
use serde_json::Value;

use crate::error::ExportError;
use crate::generation::Generation;
use crate::json::{self, Object};

/// Most bytes of a `tokenizer.json`.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// A checkpoint's tokenizer.
pub(crate) struct CheckpointTokenizer {
    /// `tokenizer.json` as it is.
    pub(crate) file: Vec<u8>,
    /// What it says.
    pub(crate) parsed: Tokenizer,
}

/// A checkpoint's chat template, as the daemon will compile it.
pub(crate) struct ChatTemplate {
    /// The file that it stands in.
    path: PathBuf,
    /// The template.
    pub(crate) source: String,
}

/// Reads `tokenizer.json` and checks that it is a tokenizer whose every token the model knows. `template` is the source of
/// the chat template, or empty.
pub(crate) fn read(dir: &Path, config: &ModelConfig, template: &str) -> Result<CheckpointTokenizer, ExportError> {
    let path = dir.join("tokenizer.json");
    let Some(bytes) = json::read_optional(&path, MAX_TOKENIZER_BYTES)? else {
        return Err(ExportError::NoTokenizer { path });
    };
    let refuse = |problem: String| ExportError::Tokenizer { path: path.clone(), problem };
    let tokenizer = Tokenizer::from_json(&bytes, template).map_err(|error| refuse(error.to_string()))?;
    match tokenizer.highest_id() {
        Some(id) if id as usize >= config.vocab_size => Err(refuse(format!(
            "has a token with the id {id}, but config.json has a vocab_size of {}: the files are not of one checkpoint",
            config.vocab_size
        ))),
        None => Err(refuse("has no tokens".to_owned())),
        Some(_) => Ok(CheckpointTokenizer { file: bytes, parsed: tokenizer }),
    }
}

/// Compiles the chat template and renders one turn with it, as the daemon will, so that a template that cannot be served is
/// not exported.
pub(crate) fn check_template(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    generation: &Generation,
) -> Result<(), ExportError> {
    let word = |id: Option<u32>| id.map(|id| tokenizer.token(id)).unwrap_or_default();
    let (bos, eos) = (word(generation.bos_token), word(generation.end_tokens.first().copied()));
    let compiled = Template::new(template.source.clone(), bos, eos);
    compiled
        .and_then(|compiled| compiled.check())
        .map_err(|error| ExportError::Malformed { path: template.path.clone(), problem: error.to_string() })
}

/// The chat template, if there is one: the file `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`,
/// which is a text, or a list of named ones of which "default" counts.
pub(crate) fn chat_template(dir: &Path) -> Result<Option<ChatTemplate>, ExportError> {
    let path = dir.join("chat_template.jinja");
    if let Some(source) = json::read_text(&path)? {
        return Ok(Some(ChatTemplate { path, source }));
    }
    let path = dir.join("tokenizer_config.json");
    let allowed = "a text, or a list of {\"name\", \"template\"} with one named \"default\"";
    let source = Object::read_optional(&path)?.convert("chat_template", allowed, |value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let entry = list.iter().find(|entry| entry["name"] == "default")?;
            entry["template"].as_str().map(str::to_owned)
        }
        _ => None,
    })?;
    Ok(source.map(|source| ChatTemplate { path, source }))
}
