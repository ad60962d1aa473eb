//! Control tokens: those that steer the model, such as `<bos>` and `<start_of_turn>`, which only the chat template and the
//! tokenizer itself may write.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use tokenizers::AddedToken;

/// The control tokens of a tokenizer.
///
/// These are the added tokens that `tokenizer.json` marks as special, and further added tokens between angle or square
/// brackets that the chat template writes (some tokenizers do not mark those).
pub(crate) struct Control {
    finder: Option<AhoCorasick>,
    tokens: Vec<(u32, AddedToken)>,
    /// First and last characters of the tokens.
    delimiters: Vec<char>,
}

/// A part of a rendered conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A control token, by its id.
    Token(u32),
    /// Bytes of the text.
    Text(Range<usize>),
}

impl Control {
    /// The control tokens among the added tokens. `template` is the source of the chat template, or empty.
    ///
    /// # Errors
    /// The tokens are too many or too long to search for; in words.
    pub(crate) fn new(added: impl Iterator<Item = (u32, AddedToken)>, template: &str) -> Result<Self, String> {
        let control = |token: &AddedToken| {
            !token.content.is_empty()
                && (token.special || (bracketed(&token.content) && template.contains(&token.content)))
        };
        let mut tokens: Vec<_> = added.filter(|(_, token)| control(token)).collect();
        tokens.sort_unstable_by_key(|(id, _)| *id);
        let delimiters: BTreeSet<char> = tokens
            .iter()
            .flat_map(|(_, token)| token.content.chars().next().into_iter().chain(token.content.chars().next_back()))
            .collect();
        let finder = match tokens.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(tokens.iter().map(|(_, token)| token.content.as_str()))
                    .map_err(|error| error.to_string())?,
            ),
        };
        Ok(Self { finder, tokens, delimiters: delimiters.into_iter().collect() })
    }

    /// A control token that other characters can become when `normalizer` (the part of `tokenizer.json`) has changed them: the
    /// tokenizer looks for tokens marked `normalized` only then, and for their `normalized` content. Gemma's normalizer, which
    /// replaces the space by "▁", makes none.
    pub(crate) fn made_by_normalizer(
        &self,
        normalizer: &Value,
        normalized: impl Fn(&str) -> Option<String>,
    ) -> Option<&str> {
        let harmless = self.harmless(normalizer);
        let made = |token: &AddedToken| {
            token.normalized && !(harmless && normalized(&token.content).is_some_and(|text| text == token.content))
        };
        self.tokens.iter().find(|(_, token)| made(token)).map(|(_, token)| token.content.as_str())
    }

    /// A control token of one character: as text it could not be written otherwise.
    pub(crate) fn of_one_character(&self) -> Option<&str> {
        let single = self.tokens.iter().find(|(_, token)| token.content.chars().nth(1).is_none());
        single.map(|(_, token)| token.content.as_str())
    }

    /// Whether a normalizer writes no character that a control token has.
    fn harmless(&self, normalizer: &Value) -> bool {
        let part_of_token = |c: char| self.tokens.iter().any(|(_, token)| token.content.contains(c));
        match (normalizer["type"].as_str(), &normalizer["content"], &normalizer["normalizers"]) {
            (None, ..) => normalizer.is_null(),
            (Some("Replace"), Value::String(content), _) => !content.is_empty() && !content.contains(part_of_token),
            (Some("Sequence"), _, Value::Array(parts)) => parts.iter().all(|part| self.harmless(part)),
            _ => false,
        }
    }

    /// The control tokens, in the order of their ids.
    pub(crate) fn tokens(&self) -> &[(u32, AddedToken)] {
        &self.tokens
    }

    /// The content of a control token with this id.
    pub(crate) fn content(&self, id: u32) -> Option<&str> {
        let at = self.tokens.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.tokens[at].1.content)
    }

    /// Whether a text may hold a control token, or a part of one.
    pub(crate) fn may_hold(&self, text: &str) -> bool {
        text.contains(self.delimiters.as_slice())
    }

    /// The text as control tokens and what lies between them, in order. White space that a token takes with it
    /// (`lstrip`, `rstrip`) belongs to no segment.
    pub(crate) fn segments(&self, text: &str) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut rest = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            let (id, token) = &self.tokens[found.pattern().as_usize()];
            let start = rest.min(found.start());
            let between = &text[start..found.start()];
            let between = if token.lstrip { between.trim_end() } else { between };
            if !between.is_empty() {
                segments.push(Segment::Text(start..start + between.len()));
            }
            segments.push(Segment::Token(*id));
            rest = found.end();
            if token.rstrip {
                rest = text.len() - text[rest..].trim_start().len();
            }
        }
        if rest < text.len() {
            segments.push(Segment::Text(rest..text.len()));
        }
        segments
    }
}

/// Whether a token looks like one that steers, and not like words or white space.
fn bracketed(content: &str) -> bool {
    (content.starts_with('<') && content.ends_with('>')) || (content.starts_with('[') && content.ends_with(']'))
}

/// Characters that stand in for the delimiters of control tokens while a conversation is rendered.
pub(crate) struct Mask {
    pairs: Vec<(char, char)>,
}

impl Mask {
    /// A mask for the delimiters, by private-use characters that none of the texts has. Without enough such characters,
    /// which takes a text of thousands of them, there is none.
    pub(crate) fn new(control: &Control, texts: &[&str]) -> Option<Self> {
        let used: BTreeSet<char> =
            texts.iter().flat_map(|text| text.chars()).filter(|c| ('\u{E000}'..='\u{F8FF}').contains(c)).collect();
        let mut free = ('\u{E000}'..='\u{F8FF}').filter(|c| !used.contains(c));
        let pairs = control.delimiters.iter().map(|&delimiter| Some((delimiter, free.next()?)));
        Some(Self { pairs: pairs.collect::<Option<_>>()? })
    }

    /// The text with each delimiter replaced by its stand-in.
    pub(crate) fn put_on(&self, text: &str) -> String {
        let replaced = |c: char| self.pairs.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to);
        text.chars().map(replaced).collect()
    }

    /// The text with each stand-in replaced by its delimiter.
    pub(crate) fn take_off<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let original = |c: char| self.pairs.iter().find(|(_, to)| *to == c).map_or(c, |(from, _)| *from);
        match text.contains(|c| self.pairs.iter().any(|(_, to)| *to == c)) {
            true => Cow::Owned(text.chars().map(original).collect()),
            false => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(tokens: &[AddedToken], template: &str) -> Control {
        Control::new((0..).zip(tokens.iter().cloned()), template).unwrap()
    }

    #[test]
    fn special_tokens_and_words_of_the_template_are_control_tokens() {
        let tokens = [
            AddedToken::from("<bos>", true),
            AddedToken::from("<turn>", false),
            AddedToken::from("<table>", false),
            AddedToken::from("\n\n", false),
        ];
        let control = control(&tokens, "{{ '<turn>' }}\n\n");
        assert_eq!(control.tokens().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((control.content(1), control.content(2)), (Some("<turn>"), None));
        assert_eq!(control.segments("<table>\n\n"), [Segment::Text(0..9)]);
        assert!(control.may_hold("a > b") && !control.may_hold("a\n\nb"));
    }

    #[test]
    fn segments_cover_the_text_and_the_longest_token_wins() {
        let tokens = [
            AddedToken::from("<a>", true),
            AddedToken::from("<a><b>", true),
            AddedToken::from("<s>", true).rstrip(true).lstrip(true),
        ];
        let control = control(&tokens, "");
        let segments = |text: &str| control.segments(text);
        assert_eq!(
            segments("x<a><b>y<a>"),
            [Segment::Text(0..1), Segment::Token(1), Segment::Text(7..8), Segment::Token(0)]
        );
        assert_eq!(segments("x  <s>  y"), [Segment::Text(0..1), Segment::Token(2), Segment::Text(8..9)]);
        assert_eq!(segments("<s>  <s>"), [Segment::Token(2), Segment::Token(2)]);
        assert_eq!(segments(""), []);
        assert_eq!(segments("plain"), [Segment::Text(0..5)]);
        assert_eq!(Control::new(std::iter::empty(), "").unwrap().segments("<a>"), [Segment::Text(0..3)]);
    }

    #[test]
    fn a_mask_hides_control_tokens_and_comes_off() {
        let control = control(&[AddedToken::from("<a>", true)], "");
        let text = "x<a>\u{E000}é";
        let mask = Mask::new(&control, &[text]).unwrap();
        let masked = mask.put_on(text);
        assert!(!control.may_hold(&masked));
        assert_eq!(masked.chars().count(), text.chars().count());
        assert_eq!(mask.take_off(&masked), text);
        let all: String = ('\u{E000}'..='\u{F8FF}').collect();
        assert!(Mask::new(&control, &[&all]).is_none());
    }
}
