//! Text to token ids and back, by the checkpoint's own `tokenizer.json`.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use serde_json::to_value;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::{
    AddedVocabulary, Decoder, Encoding, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, Token,
};

use crate::bounded;
use crate::control::{Control, Segment};
use crate::detokenize::Detokenizer;
use crate::{file, pattern};

/// A tokenizer of the Gemma family: BPE with "▁" for the space and tokens such as `<0xE2>` for single bytes.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    control: Control,
    /// The added tokens, control tokens switched off.
    plain: AddedVocabulary,
    byte_fallback: bool,
    /// Bytes of the longest token.
    longest: usize,
}

/// How control tokens that are written in a text, such as `<start_of_turn>`, are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlTokens {
    /// They become their ids, as in Hugging Face's tokenizers.
    Read,
    /// They are text like any other.
    AsText,
}

/// The text of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
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
    #[error("is not UTF-8 text")]
    NotText,
    /// The file cannot be read as a tokenizer.
    #[error("cannot be used: {0}")]
    Malformed(String),
    /// A regular expression in the file cannot be used.
    #[error("the regular expression {pattern:?} cannot be used: {reason}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// Its decoder depends on more than one token at a time.
    #[error(
        "the decoder {0} is not supported: RecurrentGemma's tokenizers decode by Replace, \
         ByteFallback and Fuse"
    )]
    Decoder(&'static str),
    /// Text could become a control token by the normalizer.
    #[error(
        "the control token {0:?} is marked \"normalized\", so that the normalizer can make it of other \
         characters: set \"normalized\" to false for it, as Gemma's tokenizers have it"
    )]
    Normalized(String),
    /// A character could not be written as text.
    #[error(
        "the control token {0:?} is a single character, so that a text with this character cannot be told from \
         the token: set \"special\" to false for it"
    )]
    Single(String),
    /// The same text has other ids each time.
    #[error("the model has \"dropout\": {0}, which leaves out merges at random: set it to null")]
    Dropout(f32),
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
    /// Reads the content of a `tokenizer.json`. `template` is the source of the chat template, or empty: control tokens that
    /// it writes are control tokens even if the file does not mark them.
    ///
    /// # Errors
    /// It is malformed, its decoder is not one of the Gemma family, or a regular expression in it gives up on long texts.
    pub fn from_json(bytes: &[u8], template: &str) -> Result<Self, TokenizerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TokenizerError::NotText)?;
        bounded::run(|| Self::read(text, template)).map_err(|error| TokenizerError::Malformed(error.to_string()))?
    }

    fn read(text: &str, template: &str) -> Result<Self, TokenizerError> {
        let malformed = |error: &dyn fmt::Display| TokenizerError::Malformed(error.to_string());
        let mut inner = file::read(text).map_err(|error| malformed(&error))?;
        // Prompts are refused for their length, and never cut or filled up.
        inner.with_truncation(None).map_err(|error| malformed(&error))?;
        inner.with_padding(None);
        let normalizer = to_value(inner.get_normalizer()).map_err(|error| malformed(&error))?;
        let pre_tokenizer = to_value(inner.get_pre_tokenizer()).map_err(|error| malformed(&error))?;
        let decoder = to_value(inner.get_decoder()).map_err(|error| malformed(&error))?;
        for part in [&normalizer, &pre_tokenizer, &decoder] {
            pattern::check(part).map_err(|(pattern, reason)| TokenizerError::Pattern { pattern, reason })?;
        }
        let byte_fallback = falls_back_to_bytes(inner.get_decoder())?;
        let added = inner.get_added_tokens_decoder();
        let control = Control::new(added.into_iter(), template).map_err(|error| malformed(&error))?;
        let normalized = |text: &str| {
            let mut text = NormalizedString::from(text);
            inner.get_normalizer().map_or(Ok(()), |normalizer| normalizer.normalize(&mut text)).ok()?;
            Some(text.get().to_owned())
        };
        if let Some(token) = control.made_by_normalizer(&normalizer, normalized) {
            return Err(TokenizerError::Normalized(token.to_owned()));
        }
        if let Some(token) = control.of_one_character() {
            return Err(TokenizerError::Single(token.to_owned()));
        }
        if let ModelWrapper::BPE(model) = inner.get_model()
            && let Some(dropout) = model.dropout.filter(|dropout| *dropout > 0.0)
        {
            return Err(TokenizerError::Dropout(dropout));
        }
        let mut plain = inner.get_added_vocabulary().clone();
        let marked = control.tokens().iter().map(|(_, token)| token.clone().special(true));
        plain
            .add_special_tokens(marked, inner.get_model(), inner.get_normalizer())
            .map_err(|error| malformed(&error))?;
        plain.set_encode_special_tokens(true);
        let count = u32::try_from(inner.get_vocab_size(true)).unwrap_or(u32::MAX);
        let longest = (0..count).filter_map(|id| inner.id_to_token(id)).map(|token| token.len());
        // An added token may have any id.
        let added = plain.get_added_tokens_decoder().values().map(|token| token.content.len());
        let longest = longest.chain(added).max().unwrap_or_default();
        let tokenizer = Self { inner, control, plain, byte_fallback, longest };
        // A part that can be read but not run shows only when it is used.
        tokenizer.encode("a", ControlTokens::Read, true).map_err(|error| malformed(&error))?;
        Ok(tokenizer)
    }

    /// The ids of a text. With `special`, the tokens that the tokenizer adds by itself, such as `<bos>`, too.
    ///
    /// Takes time in proportion to the text: call it for long texts where blocking is allowed.
    ///
    /// # Errors
    /// The tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, control: ControlTokens, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = match control {
            ControlTokens::AsText => self.without_control(self.encode_with(&self.plain, text)?)?,
            ControlTokens::Read => self.encode_with(self.inner.get_added_vocabulary(), text)?,
        };
        if special { self.with_special(ids) } else { Ok(ids) }
    }

    /// The ids of the segments of a text: control tokens by their ids, and text between them as `text_of` gives it.
    pub(crate) fn encode_segments<'t>(
        &self,
        segments: &[Segment],
        text_of: impl Fn(&std::ops::Range<usize>) -> std::borrow::Cow<'t, str>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for segment in segments {
            match segment {
                Segment::Token(id) => ids.push(*id),
                Segment::Text(range) => ids.extend(self.encode(&text_of(range), ControlTokens::AsText, false)?),
            }
        }
        Ok(ids)
    }

    /// The control tokens.
    pub(crate) fn control(&self) -> &Control {
        &self.control
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
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// The most bytes of text that so many tokens can stand for; none where a token may stand for any text, as it does in a
    /// tokenizer without tokens for single bytes. A normalizer that shortens texts is not considered: Gemma's does not.
    pub fn most_bytes(&self, tokens: usize) -> Option<usize> {
        self.byte_fallback.then(|| tokens.saturating_mul(self.longest))
    }

    /// The highest id of a token; nothing if there are no tokens.
    pub fn highest_id(&self) -> Option<u32> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder().keys().copied().max();
        self.inner.get_vocab(false).into_values().max().max(added)
    }

    /// The text of a token; special tokens have none, if they are skipped.
    pub(crate) fn piece_of(&self, id: u32, skip_special: bool) -> Piece {
        let Some(token) = self.inner.id_to_token(id) else { return Piece::Nothing };
        if skip_special && self.inner.get_added_vocabulary().is_special_token(&token) {
            return Piece::Nothing;
        }
        if self.byte_fallback
            && let Some(byte) = byte_token(&token)
        {
            return Piece::Byte(byte);
        }
        match self.inner.get_decoder().map(|decoder| decoder.decode(vec![token])) {
            Some(Ok(text)) => Piece::Text(text),
            Some(Err(_)) | None => Piece::Nothing,
        }
    }

    /// The ids of a text, by these added tokens.
    fn encode_with(&self, added: &AddedVocabulary, text: &str) -> Result<Vec<u32>, TokenizerError> {
        guarded(|| {
            let mut pieces: PreTokenizedString = added.extract_and_normalize(self.inner.get_normalizer(), text);
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            self.inner.get_model().tokenize_in_pretokenized(&mut pieces, None)?;
            let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
            Ok(splits.iter().flat_map(|(_, _, tokens)| tokens.iter().flatten()).map(|token| token.id).collect())
        })
    }

    /// These ids and the tokens that the tokenizer adds by itself, at the front, at the end or both.
    fn with_special(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        guarded(|| {
            let token = |id| Token::new(id, String::new(), (0, 0));
            let encoding = Encoding::from_tokens(ids.into_iter().map(token).collect(), 0);
            self.inner.post_process(encoding, None, true).map(|encoding| encoding.get_ids().to_vec())
        })
    }

    /// Ids of a text in which a control token that merges led to is written by its single characters.
    fn without_control(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        if !ids.iter().any(|id| self.control.content(*id).is_some()) {
            return Ok(ids);
        }
        let mut split = Vec::with_capacity(ids.len() + 16);
        for id in ids {
            match self.control.content(id) {
                None => split.push(id),
                Some(content) => {
                    for character in content.chars() {
                        split.extend(self.encode_with(&self.plain, character.encode_utf8(&mut [0; 4]))?);
                    }
                }
            }
        }
        Ok(split)
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

/// Runs the crate's code; its panics are errors.
fn guarded(work: impl FnOnce() -> tokenizers::Result<Vec<u32>>) -> Result<Vec<u32>, TokenizerError> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| TokenizerError::Encode(bounded::words(panic.as_ref())))?
        .map_err(|error| TokenizerError::Encode(error.to_string()))
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
fn falls_back_to_bytes(decoder: Option<&DecoderWrapper>) -> Result<bool, TokenizerError> {
    match decoder {
        None => Err(TokenizerError::Decoder("(none)")),
        Some(DecoderWrapper::ByteFallback(_)) => Ok(true),
        Some(DecoderWrapper::Replace(_) | DecoderWrapper::Fuse(_)) => Ok(false),
        Some(DecoderWrapper::Sequence(sequence)) => {
            let members = sequence.get_decoders().iter();
            members.map(Some).try_fold(false, |found, member| Ok(found | falls_back_to_bytes(member)?))
        }
        Some(DecoderWrapper::BPE(_)) => Err(TokenizerError::Decoder("BPEDecoder")),
        Some(DecoderWrapper::ByteLevel(_)) => Err(TokenizerError::Decoder("ByteLevel")),
        Some(DecoderWrapper::WordPiece(_)) => Err(TokenizerError::Decoder("WordPiece")),
        Some(DecoderWrapper::Metaspace(_)) => Err(TokenizerError::Decoder("Metaspace")),
        Some(DecoderWrapper::CTC(_)) => Err(TokenizerError::Decoder("CTC")),
        Some(DecoderWrapper::Strip(_)) => Err(TokenizerError::Decoder("Strip")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{BOS, FIRST_BYTE, START_OF_TURN, gemma_like, gemma_like_json};

    fn read(file: &Value) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_json(&serde_json::to_vec(file).unwrap(), "")
    }

    #[test]
    fn text_comes_back_and_bos_is_added_when_asked() {
        let tokenizer = gemma_like();
        for text in ["the hat on", "", "  a\n b", "née 叫 🦀", "▁"] {
            let ids = tokenizer.encode(text, ControlTokens::AsText, false).unwrap();
            assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "), "{ids:?}");
            let with = tokenizer.encode(text, ControlTokens::AsText, true).unwrap();
            assert_eq!((with[0], &with[1..]), (BOS, &ids[..]));
        }
    }

    #[test]
    fn special_tokens_in_the_text_become_their_ids() {
        let tokenizer = gemma_like();
        let ids = tokenizer.encode("<start_of_turn>a", ControlTokens::Read, false).unwrap();
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
        assert_eq!(tokenizer.piece_of(FIRST_BYTE + 0xE5, true), Piece::Byte(0xE5));
        assert_eq!(tokenizer.piece_of(BOS, true), Piece::Nothing);
        assert_eq!(tokenizer.piece_of(1_000_000, true), Piece::Nothing);
        let the = tokenizer.encode("the the", ControlTokens::Read, false).unwrap();
        assert_eq!(tokenizer.piece_of(*the.last().unwrap(), true), Piece::Text(" the".into()));
    }

    #[test]
    fn decodes_as_the_crate_does() {
        let tokenizer = gemma_like();
        for text in ["the hat on", "née 叫 🦀", "a\n\n  b"] {
            let ids = tokenizer.encode(text, ControlTokens::AsText, true).unwrap();
            assert_eq!(tokenizer.decode(&ids), tokenizer.inner.decode(&ids, true).unwrap());
            assert_eq!(tokenizer.decode_with_special(&ids), tokenizer.inner.decode(&ids, false).unwrap());
        }
    }

    #[test]
    fn text_never_becomes_a_control_token() {
        let tokenizer = gemma_like();
        for text in ["<start_of_turn>a", "<bos>", "a<end_of_turn>\n<start_of_turn>model\n", "<eos", "> <pad>"] {
            let ids = tokenizer.encode(text, ControlTokens::AsText, false).unwrap();
            assert!(ids.iter().all(|id| *id >= FIRST_BYTE), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids), text);
            let with = tokenizer.encode(text, ControlTokens::AsText, true).unwrap();
            assert_eq!((with[0], &with[1..]), (BOS, &ids[..]));
        }
    }

    #[test]
    fn tokens_that_the_tokenizer_adds_stand_at_both_ends() {
        let mut file = gemma_like_json();
        file["post_processor"]["single"]
            .as_array_mut()
            .unwrap()
            .push(json!({"SpecialToken": {"id": "<eos>", "type_id": 0}}));
        file["post_processor"]["special_tokens"]["<eos>"] = json!({"id": "<eos>", "ids": [1], "tokens": ["<eos>"]});
        let tokenizer = read(&file).unwrap();
        for text in ["", "the hat", "<bos>the<eos> hat"] {
            for control in [ControlTokens::AsText, ControlTokens::Read] {
                let ids = tokenizer.encode(text, control, false).unwrap();
                let with = tokenizer.encode(text, control, true).unwrap();
                assert_eq!(with, [&[BOS][..], &ids, &[1]].concat(), "{text:?} {control:?}");
            }
        }
    }

    #[test]
    fn a_control_token_that_merges_lead_to_is_written_by_its_characters() {
        let mut file = gemma_like_json();
        let merged = file["model"]["vocab"].as_object().unwrap().len();
        file["model"]["vocab"]["<t"] = json!(merged);
        file["model"]["vocab"]["<t>"] = json!(merged + 1);
        file["model"]["merges"].as_array_mut().unwrap().extend([json!(["<", "t"]), json!(["<t", ">"])]);
        let id = u32::try_from(merged + 1).unwrap();
        let free = Arc::new(read(&file).unwrap());
        assert_eq!(free.encode("<t>", ControlTokens::AsText, false).unwrap(), [id]);
        let token = json!({"id": id, "content": "<t>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false});
        file["added_tokens"].as_array_mut().unwrap().push(token);
        let bytes = serde_json::to_vec(&file).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_json(&bytes, "{{ '<t>' }}").unwrap());
        assert_eq!(tokenizer.encode("<t>", ControlTokens::Read, false).unwrap(), [id]);
        let ids = tokenizer.encode("<t>", ControlTokens::AsText, false).unwrap();
        assert!(!ids.contains(&id), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids), "<t>");
    }

    #[test]
    fn a_tokenizer_without_a_byte_token_for_the_tab_is_read() {
        let mut file = gemma_like_json();
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        let tab = vocabulary.remove("<0x09>").unwrap();
        vocabulary.insert("\t".into(), tab.clone());
        let tokenizer = Arc::new(read(&file).unwrap());
        let ids = tokenizer.encode("\ta", ControlTokens::AsText, false).unwrap();
        assert_eq!(json!(ids[0]), tab);
        assert_eq!(tokenizer.decode(&ids), "\ta");
    }

    #[test]
    fn regular_expressions_work_and_those_that_give_up_are_refused() {
        let mut file = gemma_like_json();
        file["pre_tokenizer"]["pattern"] = json!({"Regex": "[^a]+"});
        assert!(read(&file).is_ok());
        file["pre_tokenizer"]["pattern"] = json!({"Regex": "(?:a(?!x)|aa(?!x))+c"});
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("(?:a(?!x)|aa(?!x))+c") && error.contains("gives up"), "{error}");
    }

    #[test]
    fn a_control_token_that_a_normalizer_can_make_is_refused() {
        let with = |normalizer: Value, normalized: bool| {
            let mut file = gemma_like_json();
            file["normalizer"] = normalizer;
            file["added_tokens"][START_OF_TURN as usize]["normalized"] = json!(normalized);
            read(&file)
        };
        let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let nfkc = || json!({"type": "Sequence", "normalizers": [replace(" ", "▁"), {"type": "NFKC"}]});
        for (normalizer, normalized, allowed) in [
            (replace(" ", "▁"), true, true),
            (json!(null), true, true),
            (nfkc(), false, true),
            (nfkc(), true, false),
            (replace("＜", "<"), true, false),
            (json!({"type": "Lowercase"}), true, false),
            (replace("\u{200b}", ""), true, false),
            (replace("turn", "▁"), true, false),
        ] {
            let read = with(normalizer.clone(), normalized);
            assert_eq!(read.is_ok(), allowed, "{normalizer} {normalized}: {:?}", read.err());
            if let Err(error) = read {
                assert!(error.to_string().contains("\"normalized\""), "{error}");
            }
        }
    }

    #[test]
    fn no_text_has_more_bytes_than_its_tokens_may() {
        let tokenizer = gemma_like();
        assert_eq!(tokenizer.most_bytes(2), Some(2 * "<start_of_turn>".len()));
        for text in ["the the the", "née 叫 🦀", "▁▁▁"] {
            let tokens = tokenizer.encode(text, ControlTokens::AsText, false).unwrap().len();
            assert!(tokenizer.most_bytes(tokens) >= Some(text.len()), "{text}");
        }
    }

    #[test]
    fn single_characters_and_dropout_are_refused() {
        let mut file = gemma_like_json();
        file["added_tokens"].as_array_mut().unwrap().push(json!({"id": 999, "content": "\n", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}));
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains(r#""\n""#) && error.contains("single character"), "{error}");
        let mut file = gemma_like_json();
        file["model"]["dropout"] = json!(0.1);
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("dropout\": 0.1"), "{error}");
    }

    #[test]
    fn the_highest_id_counts_added_tokens() {
        assert_eq!(gemma_like().highest_id(), Some(364));
    }

    #[test]
    fn says_what_it_cannot_read() {
        assert!(matches!(Tokenizer::from_json(&[0xFF], ""), Err(TokenizerError::NotText)));
        assert!(matches!(Tokenizer::from_json(b"{}", ""), Err(TokenizerError::Malformed(_))));
        assert!(matches!(Tokenizer::from_json(b"[1", ""), Err(TokenizerError::Malformed(_))));
    }
}
