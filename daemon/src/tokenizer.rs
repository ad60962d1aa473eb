//! Text to token ids and back, by the checkpoint's own `tokenizer.json`.

mod canonical;

use std::fmt;
use std::sync::Arc;

use tokenizers::decoders::DecoderRuntime;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};
use tokenizers::{Decoder, from_json};

use crate::engine::detokenize::Detokenizer;
use canonical::canonical;

/// A tokenizer of the Gemma family: BPE with "▁" for the space and tokens such as `<0xE2>` for single bytes.
pub struct Tokenizer {
    inner: PipelineTokenizer,
    decoder: DecoderRuntime,
    byte_fallback: bool,
}

/// What one token contributes to a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Whole characters.
    Text(String),
    /// One byte of a character that has no token of its own.
    Byte(u8),
    /// A special token such as `<bos>`, or an id that the tokenizer does not know: no text.
    Nothing,
}

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not text.
    #[error("tokenizer.json is not UTF-8")]
    NotText,
    /// The file cannot be read as a tokenizer.
    #[error("tokenizer.json cannot be used: {0}")]
    Malformed(String),
    /// Its decoder depends on more than one token at a time.
    #[error(
        "the decoder {0} of tokenizer.json is not supported: RecurrentGemma's tokenizers decode by Replace, \
         ByteFallback and Fuse"
    )]
    Decoder(&'static str),
    /// The text could not be encoded.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("byte_fallback", &self.byte_fallback).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// It is malformed, or its decoder is not one of the Gemma family.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TokenizerError::NotText)?;
        let malformed = |error: &dyn fmt::Display| TokenizerError::Malformed(error.to_string());
        let inner =
            from_json(&canonical(text).map_err(TokenizerError::Malformed)?).map_err(|error| malformed(&error))?;
        let decoder = match inner.get_decoder() {
            Some(decoder) => decoder.clone(),
            None => return Err(TokenizerError::Decoder("(none)")),
        };
        let byte_fallback = falls_back_to_bytes(&decoder)?;
        let tokenizer = Self { inner, decoder, byte_fallback };
        // A pre-tokenizer that the crate reads but cannot run shows only when it is used.
        tokenizer.encode("a", false).map_err(|error| malformed(&error))?;
        Ok(tokenizer)
    }

    /// The ids of a text. With `special`, the tokens that the tokenizer adds by itself, such as `<bos>`, too.
    /// Special tokens that are written out in the text become their ids either way.
    ///
    /// Takes time in proportion to the text: call it for long texts where blocking is allowed.
    ///
    /// # Errors
    /// The tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let options = EncodeOptions {
            add_special_tokens: special,
            encode_special_tokens: false,
            padding: Override::Off,
            truncation: Override::Off,
        };
        let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
        self.inner
            .encode_into(text, &options, &mut tokens)
            .map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(tokens.into_iter().map(PipelineToken::id).collect())
    }

    /// What a token contributes to a text.
    #[cfg(test)]
    pub(crate) fn piece(&self, id: u32) -> Piece {
        self.piece_of(id, true)
    }

    /// The text of these tokens, without special tokens. The same as what a stream of them shows.
    pub fn decode(self: &Arc<Self>, ids: &[u32]) -> String {
        Self::join(ids, Detokenizer::new(Arc::clone(self)))
    }

    /// The text of these tokens, with special tokens written out.
    pub fn decode_with_special(self: &Arc<Self>, ids: &[u32]) -> String {
        Self::join(ids, Detokenizer::keeping_special(Arc::clone(self)))
    }

    /// How a token is written in the vocabulary; empty for an unknown id.
    pub fn token(&self, id: u32) -> String {
        self.inner.decode_tokens(&[id], false).pop().unwrap_or_default()
    }

    /// What a token contributes to a text; special tokens nothing, if they are skipped.
    pub(crate) fn piece_of(&self, id: u32, skip_special: bool) -> Piece {
        let Some(token) = self.inner.decode_tokens(&[id], skip_special).pop() else {
            return Piece::Nothing;
        };
        if self.byte_fallback
            && let Some(byte) = byte_token(&token)
        {
            return Piece::Byte(byte);
        }
        match self.decoder.decode(vec![token]) {
            Ok(text) => Piece::Text(text),
            Err(_) => Piece::Nothing,
        }
    }

    fn join(ids: &[u32], mut detokenizer: Detokenizer) -> String {
        let mut text = String::new();
        for &id in ids {
            text.push_str(&detokenizer.push(id));
        }
        text.push_str(&detokenizer.flush());
        text
    }
}

/// The byte that a token such as `<0xE2>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Whether the decoder turns byte tokens into bytes. Fails where a token's text depends on its neighbours otherwise.
fn falls_back_to_bytes(decoder: &DecoderRuntime) -> Result<bool, TokenizerError> {
    match decoder {
        DecoderRuntime::ByteFallback(_) => Ok(true),
        DecoderRuntime::Replace(_) | DecoderRuntime::Fuse(_) => Ok(false),
        DecoderRuntime::Sequence(members) => {
            members.iter().try_fold(false, |found, member| Ok(found | falls_back_to_bytes(member)?))
        }
        DecoderRuntime::BPE(_) => Err(TokenizerError::Decoder("BPEDecoder")),
        DecoderRuntime::ByteLevel(_) => Err(TokenizerError::Decoder("ByteLevel")),
        DecoderRuntime::WordPiece(_) => Err(TokenizerError::Decoder("WordPiece")),
        DecoderRuntime::Metaspace(_) => Err(TokenizerError::Decoder("Metaspace")),
        DecoderRuntime::CTC(_) => Err(TokenizerError::Decoder("CTC")),
        DecoderRuntime::Strip(_) => Err(TokenizerError::Decoder("Strip")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// Ids of the tokenizer below.
    pub(crate) const BOS: u32 = 2;
    pub(crate) const START_OF_TURN: u32 = 4;
    pub(crate) const FIRST_BYTE: u32 = 6;

    /// A small tokenizer built as Gemma's: special tokens, 256 byte tokens, "▁" for the space, merges.
    pub(crate) fn gemma_like() -> Arc<Tokenizer> {
        Arc::new(Tokenizer::from_json(&serde_json::to_vec(&gemma_like_json()).unwrap()).unwrap())
    }

    fn gemma_like_json() -> serde_json::Value {
        let specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
        let mut tokens: Vec<String> = specials.iter().map(ToString::to_string).collect();
        tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
        tokens.push("\n".into());
        tokens.push("▁".into());
        tokens.extend(('!'..='~').map(String::from));
        let merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("o", "n"), ("▁", "▁")];
        tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
        tokens.extend(["é".into(), "叫".into()]);
        let vocab: serde_json::Map<_, _> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let added: Vec<_> = specials
            .iter()
            .enumerate()
            .map(|(id, token)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": null, "added_tokens": added,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocab, "merges": merges.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()}
        })
    }

    #[test]
    fn text_comes_back_and_bos_is_added_when_asked() {
        let tokenizer = gemma_like();
        for text in ["the hat on", "", "  a\n b", "née 叫 🦀", "▁"] {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "), "{ids:?}");
            let with = tokenizer.encode(text, true).unwrap();
            assert_eq!((with[0], &with[1..]), (BOS, &ids[..]));
        }
    }

    #[test]
    fn special_tokens_in_the_text_become_their_ids() {
        let tokenizer = gemma_like();
        let ids = tokenizer.encode("<start_of_turn>a", false).unwrap();
        assert_eq!(ids[0], START_OF_TURN);
        assert_eq!(tokenizer.decode(&ids), "a");
        assert_eq!(tokenizer.decode_with_special(&ids), "<start_of_turn>a");
        assert_eq!(tokenizer.token(START_OF_TURN), "<start_of_turn>");
        assert_eq!(tokenizer.piece_of(START_OF_TURN, true), Piece::Nothing);
        assert_eq!(tokenizer.piece_of(START_OF_TURN, false), Piece::Text("<start_of_turn>".into()));
    }

    #[test]
    fn pieces_are_text_bytes_or_nothing() {
        let tokenizer = gemma_like();
        assert_eq!(tokenizer.piece(FIRST_BYTE + 0xE5), Piece::Byte(0xE5));
        assert_eq!(tokenizer.piece(BOS), Piece::Nothing);
        assert_eq!(tokenizer.piece(1_000_000), Piece::Nothing);
        let the = tokenizer.encode("the the", false).unwrap();
        assert_eq!(tokenizer.piece(*the.last().unwrap()), Piece::Text(" the".into()));
    }

    #[test]
    fn decodes_as_the_crate_does() {
        let tokenizer = gemma_like();
        for text in ["the hat on", "née 叫 🦀", "a\n\n  b"] {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids), tokenizer.inner.decode(&ids, true).unwrap());
            assert_eq!(tokenizer.decode_with_special(&ids), tokenizer.inner.decode(&ids, false).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_when_it_is_read() {
        let mut file = gemma_like_json();
        file["pre_tokenizer"]["pattern"] = json!({"Regex": "[^a]+"});
        let error = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap()).unwrap_err();
        assert!(error.to_string().contains("Split"), "{error}");
    }

    #[test]
    fn says_what_it_cannot_read() {
        assert!(matches!(Tokenizer::from_json(&[0xFF]), Err(TokenizerError::NotText)));
        assert!(matches!(Tokenizer::from_json(b"{}"), Err(TokenizerError::Malformed(_))));
        assert!(matches!(Tokenizer::from_json(b"[1"), Err(TokenizerError::Malformed(_))));
    }
}
