//! Token ids to text, one at a time, so that only whole characters leave.

use std::sync::Arc;

use crate::tokenizer::{Piece, Tokenizer};

/// The text of a growing sequence of tokens. Holds at most three bytes back.
///
/// Tokens that stand for single bytes are put together to characters. Bytes that make no character become U+FFFD,
/// one for each byte; characters beside them are kept.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// The beginning of a character: a valid UTF-8 prefix of at most three bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Begins a text in which special tokens make nothing.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, skip_special: true, pending: Vec::with_capacity(4) }
    }

    /// Begins a text in which special tokens are written out.
    pub fn keeping_special(tokenizer: Arc<Tokenizer>) -> Self {
        Self { skip_special: false, ..Self::new(tokenizer) }
    }

    /// The characters that this token completes; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> String {
        match self.tokenizer.piece_of(id, self.skip_special) {
            Piece::Nothing => String::new(),
            Piece::Byte(byte) => self.push_byte(byte),
            Piece::Text(text) if self.pending.is_empty() => text,
            Piece::Text(text) => self.flush() + &text,
        }
    }

    /// The end of the text: an incomplete character as U+FFFD, one for each byte.
    pub fn flush(&mut self) -> String {
        let text = replacement(self.pending.len());
        self.pending.clear();
        text
    }

    fn push_byte(&mut self, byte: u8) -> String {
        self.pending.push(byte);
        match std::str::from_utf8(&self.pending) {
            Ok(text) => {
                let text = text.to_owned();
                self.pending.clear();
                text
            }
            // A prefix of a character: wait.
            Err(error) if error.error_len().is_none() => String::new(),
            // The bytes before this one will never be a character; this one may begin another.
            Err(_) if self.pending.len() > 1 => {
                self.pending.pop();
                self.flush() + &self.push_byte(byte)
            }
            Err(_) => self.flush(),
        }
    }
}

fn replacement(bytes: usize) -> String {
    "\u{FFFD}".repeat(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ControlTokens;
    use crate::fixture::{BOS, FIRST_BYTE, gemma_like};

    /// All ids of the test's tokenizer, and some that it does not know.
    const IDS: std::ops::Range<u32> = 0..380;

    fn bytes(text: &[u8]) -> Vec<u32> {
        text.iter().map(|byte| FIRST_BYTE + u32::from(*byte)).collect()
    }

    fn deltas(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
        let mut deltas: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
        deltas.push(detokenizer.flush());
        deltas
    }

    /// The whole at once: every run of byte tokens is decoded greedily.
    fn oracle(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut run: Vec<u8> = Vec::new();
        let close = |run: &mut Vec<u8>, text: &mut String| {
            for chunk in run.utf8_chunks() {
                text.push_str(chunk.valid());
                text.push_str(&replacement(chunk.invalid().len()));
            }
            run.clear();
        };
        for id in ids {
            match tokenizer.piece_of(*id, true) {
                Piece::Byte(byte) => run.push(byte),
                Piece::Text(piece) => {
                    close(&mut run, &mut text);
                    text.push_str(&piece);
                }
                Piece::Nothing => {}
            }
        }
        close(&mut run, &mut text);
        text
    }

    #[test]
    fn a_character_leaves_when_its_last_byte_came() {
        let tokenizer = gemma_like();
        assert_eq!(deltas(&tokenizer, &bytes("🦀é".as_bytes())), ["", "", "", "🦀", "", "é", ""]);
    }

    #[test]
    fn broken_bytes_become_replacement_characters() {
        let tokenizer = gemma_like();
        assert_eq!(deltas(&tokenizer, &bytes(b"\xE5\x8F")), ["", "", "\u{FFFD}\u{FFFD}"]);
        assert_eq!(deltas(&tokenizer, &bytes(b"\xE5a\xFF")), ["", "\u{FFFD}a", "\u{FFFD}", ""]);
        assert_eq!(deltas(&tokenizer, &bytes(b"\xF0\x9F\xF0")), ["", "", "\u{FFFD}\u{FFFD}", "\u{FFFD}"]);
    }

    #[test]
    fn special_tokens_do_not_part_a_character() {
        let tokenizer = gemma_like();
        let mut ids = bytes("é".as_bytes());
        ids.insert(1, BOS);
        assert_eq!(deltas(&tokenizer, &ids).concat(), "é");
    }

    proptest! {
        #[test]
        fn deltas_together_are_the_whole(ids in prop::collection::vec(IDS, 0..40)) {
            let tokenizer = gemma_like();
            prop_assert_eq!(deltas(&tokenizer, &ids).concat(), oracle(&tokenizer, &ids));
        }

        #[test]
        fn bytes_together_are_the_whole(bytes_in in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..=0xBFu8, 0xE0..=0xF4u8], 0..12)) {
            let tokenizer = gemma_like();
            let ids = bytes(&bytes_in);
            prop_assert_eq!(deltas(&tokenizer, &ids).concat(), oracle(&tokenizer, &ids));
        }

        #[test]
        fn valid_text_is_what_was_written(text in "\\PC{0,20}") {
            let tokenizer = gemma_like();
            let ids = tokenizer.encode(&text, ControlTokens::AsText, false).unwrap();
            prop_assert_eq!(deltas(&tokenizer, &ids).concat(), text.replace('▁', " "));
            prop_assert_eq!(deltas(&tokenizer, &bytes(text.as_bytes())).concat(), text);
        }

        #[test]
        fn at_most_three_bytes_are_held_back(ids in prop::collection::vec(IDS, 0..40)) {
            let mut detokenizer = Detokenizer::new(gemma_like());
            for id in ids {
                detokenizer.push(id);
                prop_assert!(detokenizer.pending.len() < 4);
            }
        }
    }
}
