//! Texts by which a quantization is made and judged.

use std::path::Path;

use recurve_model::ModelConfig;
use recurve_text::{ControlTokens, Tokenizer};
use serde::Deserialize;

use crate::error::ExportError;
use crate::json;

/// Most bytes of a file of texts.
const MAX_BYTES: u64 = 64 << 20;
/// Most tokens that the model reads from one beginning: longer texts are cut into several.
const LONGEST: usize = 512;

/// A text as the model reads it, from its beginning.
#[derive(Debug, PartialEq)]
pub(crate) struct Text {
    /// `<bos>` first, where the model has one.
    pub(crate) tokens: Vec<u32>,
    /// The first token that the model has to foresee; at least 1.
    pub(crate) foreseen: usize,
}

/// What turns texts into tokens: the checkpoint's own tokenizer.
pub(crate) struct Tokens<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) config: &'a ModelConfig,
    pub(crate) bos_token: Option<u32>,
}

/// A line of a file that ends in `.jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
enum Line {
    /// What is given, with all that the chat template puts around it, and what is to be foreseen.
    Reply { prompt: String, completion: String },
    /// Of which all is to be foreseen.
    Plain { text: String },
}

impl Tokens<'_> {
    /// The texts of the file, up to `limit` tokens.
    ///
    /// # Errors
    /// The file cannot be read, has a line that is not as it must be, or holds nothing to foresee.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Result<Vec<Text>, ExportError> {
        let malformed = |problem: String| ExportError::Malformed { path: path.to_owned(), problem };
        let bytes = json::read_optional(path, MAX_BYTES)?.ok_or_else(|| {
            malformed("there is no such file: give one of texts like those that the model is for".to_owned())
        })?;
        let text = String::from_utf8(bytes).map_err(|error| malformed(format!("is not UTF-8 text: {error}")))?;
        let mut texts = Vec::new();
        let mut left = limit;
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                if left == 0 {
                    break;
                }
                let line = serde_json::from_str(line).map_err(|_| {
                    malformed(format!(
                        "line {}: must be a JSON object of two texts, \"prompt\" and \"completion\", or of one, \"text\"",
                        number + 1
                    ))
                })?;
                let (given, foreseen) = match line {
                    Line::Reply { prompt, completion } => (self.encode(&prompt), self.encode(&completion)),
                    Line::Plain { text } => (Ok(Vec::new()), self.encode(&text)),
                };
                self.cut(given.map_err(malformed)?, &foreseen.map_err(malformed)?, &mut left, &mut texts);
            }
        } else {
            self.cut(Vec::new(), &self.encode(&text).map_err(malformed)?, &mut left, &mut texts);
        }
        if texts.is_empty() {
            return Err(malformed("holds no text".to_owned()));
        }
        Ok(texts)
    }

    /// Adds what is given and what is to be foreseen, in pieces of [`LONGEST`] tokens; what is given begins the first.
    fn cut(&self, given: Vec<u32>, foreseen: &[u32], left: &mut usize, texts: &mut Vec<Text>) {
        let begin = |given: Vec<u32>| match self.bos_token {
            Some(bos) if given.first() != Some(&bos) => [vec![bos], given].concat(),
            _ => given,
        };
        let (mut tokens, mut rest) = (begin(given), foreseen);
        if self.bos_token.is_some_and(|bos| rest.first() == Some(&bos)) {
            rest = &rest[1..];
        }
        while !rest.is_empty() && tokens.len() < LONGEST.min(*left) {
            // Without anything before it, nothing foresees the first token.
            let first = tokens.len().max(1);
            let (piece, after) = rest.split_at(rest.len().min(LONGEST.min(*left) - tokens.len()));
            tokens.extend(piece);
            *left -= tokens.len();
            if tokens.len() > first {
                texts.push(Text { tokens, foreseen: first });
            }
            (tokens, rest) = (begin(Vec::new()), after);
        }
        if !rest.is_empty() && tokens.len() >= *left {
            // Whatever comes after it is not read either.
            *left = 0;
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let ids = self.tokenizer.encode(text, ControlTokens::Read, false).map_err(|error| error.to_string())?;
        match ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            Some(id) => Err(format!("has the token {id}, which the model does not know")),
            None => Ok(ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENIZER: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {"no": 0, "begin": 1, "a": 2, "b": 3, "c": 4}, "unk_token": "no"}
    }"#;
    const CONFIG: &str = r#"{
        "model_type": "recurrent_gemma", "vocab_size": 5, "hidden_size": 96, "intermediate_size": 384,
        "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "attention_window_size": 10
    }"#;

    fn read(name: &str, content: &str, limit: usize) -> Result<Vec<Text>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
        let tokenizer = Tokenizer::from_json(TOKENIZER.as_bytes(), "").unwrap();
        Tokens { tokenizer: &tokenizer, config: &config, bos_token: Some(1) }
            .read(&path, limit)
            .map_err(|error| error.to_string())
    }

    fn text(tokens: &[u32], foreseen: usize) -> Text {
        Text { tokens: tokens.to_vec(), foreseen }
    }

    #[test]
    fn only_the_completion_of_a_prompt_is_foreseen() {
        let lines = "{\"prompt\": \"a b\", \"completion\": \"c\"}\n\n{\"text\": \"begin c a\"}\n";
        assert_eq!(read("x.jsonl", lines, 100).unwrap(), [text(&[1, 2, 3, 4], 3), text(&[1, 4, 2], 1)]);
        assert_eq!(read("x.txt", "a\nb", 100).unwrap(), [text(&[1, 2, 3], 1)]);
    }

    #[test]
    fn a_long_text_is_cut_and_no_more_is_read_than_asked_for() {
        let long = "a ".repeat(1200);
        let lengths = |limit| -> Vec<usize> {
            read("x.txt", &long, limit).unwrap().iter().map(|text| text.tokens.len()).collect()
        };
        assert_eq!(lengths(10_000), [512, 512, 179]);
        assert_eq!(lengths(600), [512, 88]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, content, part) in [
            ("x.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"a\"}", "line 2: must be a JSON object"),
            ("x.txt", "", "holds no text"),
            ("x.jsonl", "{\"prompt\": \"a\", \"completion\": \"\"}", "holds no text"),
        ] {
            let error = read(name, content, 100).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
