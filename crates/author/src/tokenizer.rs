//! The checkpoint's tokenizer.

use std::path::Path;

use recurve_model::ModelConfig;
use recurve_text::Tokenizer;

use crate::error::ExportError;
use crate::json;

/// Most bytes of a `tokenizer.json`.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// What a checkpoint has that was saved with the slow tokenizer only.
const SENTENCEPIECE: &str = "tokenizer.model";

/// A checkpoint's tokenizer.
pub(crate) struct CheckpointTokenizer {
    /// `tokenizer.json` as it is.
    pub(crate) file: Vec<u8>,
    /// What it says.
    pub(crate) parsed: Tokenizer,
}

/// Reads `tokenizer.json` and checks that it is a tokenizer whose every token the model knows. `template` is the source of
/// the chat template, or empty.
pub(crate) fn read(dir: &Path, config: &ModelConfig, template: &str) -> Result<CheckpointTokenizer, ExportError> {
    let path = dir.join("tokenizer.json");
    let Some(bytes) = json::read_optional(&path, MAX_TOKENIZER_BYTES)? else {
        return Err(ExportError::NoTokenizer { has_model: dir.join(SENTENCEPIECE).exists(), path });
    };
    let refuse = |problem: String| ExportError::Tokenizer { path: path.clone(), problem };
    let tokenizer = Tokenizer::from_json(&bytes, template).map_err(|error| refuse(error.to_string()))?;
    match tokenizer.highest_id() {
        Some(id) if id as usize >= config.vocab_size => Err(refuse(format!(
            "there is a token with the id {id}, but config.json has a vocab_size of {}: the files are not of one checkpoint",
            config.vocab_size
        ))),
        None => Err(refuse("has no tokens".to_owned())),
        Some(_) => Ok(CheckpointTokenizer { file: bytes, parsed: tokenizer }),
    }
}
