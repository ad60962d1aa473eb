//! The first tokens of a conversation, as the daemon gives them to the model.

use std::fmt::Display;

use recurve_bundle::{Bundle, file};
use recurve_text::{Message, Role, Template, Tokenizer, encode_chat};
use serde::Serialize;

/// What the person says in it.
const QUESTION: &str = "Hello";
/// Most tokens that are shown.
const SHOWN: usize = 16;

/// A token of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Token {
    id: u32,
    /// As the vocabulary has it.
    piece: String,
}

/// The first tokens of a conversation of one turn; none where the bundle has no tokenizer or no chat template.
///
/// # Errors
/// Says why tokenizer or template cannot be used.
pub(super) fn first_tokens(bundle: &Bundle) -> Result<Option<Vec<Token>>, String> {
    let read = |filepath| bundle.read(filepath).map_err(in_words_of);
    let (Some(tokenizer), Some(template)) = (read(file::TOKENIZER)?, read(file::CHAT_TEMPLATE)?) else {
        return Ok(None);
    };
    let source = String::from_utf8(template).map_err(in_words_of)?;
    let tokenizer = Tokenizer::from_json(&tokenizer, &source).map_err(in_words_of)?;
    let word = |id: Option<u32>| id.map(|id| tokenizer.token(id)).unwrap_or_default();
    let info = bundle.info();
    let ends = info.end_tokens.first().copied();
    let template = Template::new(source, word(info.bos_token), word(ends)).map_err(in_words_of)?;
    let question = Message { role: Role::User, content: QUESTION.to_owned() };
    let ids = encode_chat(&tokenizer, &template, &[question]).map_err(in_words_of)?;
    Ok(Some(ids.into_iter().take(SHOWN).map(|id| Token { id, piece: tokenizer.token(id) }).collect()))
}

fn in_words_of(error: impl Display) -> String {
    error.to_string()
}

/// The same in words.
pub(super) fn in_words(tokens: &[Token]) -> String {
    let words = tokens.iter().map(|token| format!("{} {:?}", token.id, token.piece));
    let more = if tokens.len() == SHOWN { ", …" } else { "" };
    format!("first tokens of a chat with the message {QUESTION:?}: {}{}", words.collect::<Vec<_>>().join(", "), more)
}
