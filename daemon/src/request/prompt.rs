//! What the model reads: text, token ids or a conversation, made into token ids.

use std::sync::Arc;

use super::long::LONG_TEXTS;
use super::violations::{RequestError, Violations, short};
use crate::model::Model;
use recurve_proto::v1;
use recurve_text::{ChatError, ControlTokens, Message, Role, TemplateError, encode_chat};

const MAX_MESSAGES: usize = 4096;
/// Texts up to this many bytes are tokenized where the request is read; longer ones would keep others waiting.
const INLINE_BYTES: usize = 2048;

/// What the model reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text for the tokenizer.
    Text {
        /// The text.
        text: String,
        /// With the tokens that the tokenizer adds by itself.
        special: bool,
        /// What control tokens are that the text writes out.
        control: ControlTokens,
    },
    /// Ids below the vocabulary size, at least one.
    Tokens(Vec<u32>),
    /// A conversation, at least one message.
    Chat(Vec<Message>),
}

impl Prompt {
    /// Whether the bundle has what this prompt needs.
    ///
    /// # Errors
    /// What it has not.
    pub(super) fn needs(&self, model: &Model) -> Result<(), RequestError> {
        match self {
            Self::Tokens(_) => Ok(()),
            _ if model.tokenizer.is_none() => Err(RequestError::NoTokenizer),
            Self::Chat(_) if model.template.is_none() => Err(RequestError::NoChatTemplate),
            _ => Ok(()),
        }
    }

    /// The token ids: at least one and at most `most`, each below the vocabulary size.
    ///
    /// # Errors
    /// There are none or too many, too many long texts wait, the template refuses the conversation, or the bundle's
    /// parts do not fit together.
    pub async fn tokens(self, model: &Arc<Model>, most: usize) -> Result<Vec<u32>, RequestError> {
        let field = self.field();
        let tokens = self.encoded(model, most, |tokens| tokens).await?;
        if tokens.is_empty() { Err(RequestError::invalid(field, "makes no tokens")) } else { Ok(tokens) }
    }

    /// The token ids, at most `most` and perhaps none, and how each is written in the vocabulary.
    ///
    /// # Errors
    /// As [`Prompt::tokens`], but for none.
    pub async fn pieces(self, model: &Arc<Model>, most: usize) -> Result<(Vec<u32>, Vec<String>), RequestError> {
        let tokenizer = Arc::clone(model.tokenizer.as_ref().ok_or(RequestError::NoTokenizer)?);
        self.encoded(model, most, move |tokens| {
            let pieces = tokens.iter().map(|id| tokenizer.token(*id)).collect();
            (tokens, pieces)
        })
        .await
    }

    /// What `then` makes of the token ids, at most `most`; for a long text beside the threads that serve calls.
    async fn encoded<T: Send + 'static>(
        self,
        model: &Arc<Model>,
        most: usize,
        then: impl FnOnce(Vec<u32>) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let (field, bytes) = (self.field(), self.bytes());
        let model = Arc::clone(model);
        let work = move || match self.encode_here(&model)? {
            tokens if tokens.len() > most => Err(RequestError::invalid(
                field,
                format!("has {} tokens, this node takes at most {most}", tokens.len()),
            )),
            tokens => Ok(then(tokens)),
        };
        if bytes > INLINE_BYTES { LONG_TEXTS.run(bytes, work).await? } else { work() }
    }

    fn encode_here(self, model: &Model) -> Result<Vec<u32>, RequestError> {
        let tokens = match self {
            Self::Tokens(tokens) => return Ok(tokens),
            Self::Text { text, special, control } => {
                let tokenizer = model.tokenizer.as_deref().ok_or(RequestError::NoTokenizer)?;
                tokenizer.encode(&text, control, special).map_err(|error| RequestError::Bundle(error.to_string()))?
            }
            Self::Chat(messages) => {
                let tokenizer = model.tokenizer.as_deref().ok_or(RequestError::NoTokenizer)?;
                let template = model.template.as_ref().ok_or(RequestError::NoChatTemplate)?;
                encode_chat(tokenizer, template, &messages).map_err(refused_chat)?
            }
        };
        match tokens.iter().find(|id| **id >= model.vocab_size) {
            None => Ok(tokens),
            Some(id) => Err(RequestError::Bundle(format!(
                "the bundle's tokenizer made token {id}, but its model knows ids below {}",
                model.vocab_size
            ))),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::Tokens(_) => 0,
            Self::Chat(messages) => messages.iter().map(|m| m.content.len() + 32).sum(),
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Tokens(_) => "tokens.ids",
            Self::Chat(_) => "chat.messages",
        }
    }
}

/// Why a conversation has no token ids. The template was checked with a conversation of one turn when the model was loaded:
/// where it fails later, the conversation is the cause.
fn refused_chat(error: ChatError) -> RequestError {
    match error {
        ChatError::Template(TemplateError::Refused { words, turn }) => RequestError::TemplateRefused { words, turn },
        ChatError::Template(
            error @ (TemplateError::LooksInside | TemplateError::NoMask | TemplateError::Failed(_)),
        ) => RequestError::invalid("chat.messages", error.to_string()),
        ChatError::Template(error @ TemplateError::NoThread(_)) => RequestError::Shortage(error.to_string()),
        ChatError::Template(error @ TemplateError::Malformed(_)) => RequestError::Bundle(error.to_string()),
        ChatError::Tokenizer(error) => RequestError::Bundle(error.to_string()),
    }
}

pub(super) fn generate(
    wire: Option<v1::generate_request::Prompt>,
    control: bool,
    model: &Model,
    violations: &mut Violations,
) -> Option<Prompt> {
    use v1::generate_request::Prompt as Wire;
    match wire {
        Some(Wire::Text(text)) => self::text(text, control, Tokens::of_prompt(model), model, violations),
        other if control => only_with_text(other.is_some(), violations),
        Some(Wire::Tokens(tokens)) => ids(tokens, model.limits.max_prompt_tokens, model, violations),
        Some(Wire::Chat(chat)) => self::chat(chat, Tokens::of_prompt(model), model, violations),
        None => missing("prompt", "set one of text, tokens and chat", violations),
    }
}

pub(super) fn score(
    wire: Option<v1::score_request::Input>,
    control: bool,
    model: &Model,
    violations: &mut Violations,
) -> Option<Prompt> {
    use v1::score_request::Input as Wire;
    match wire {
        Some(Wire::Text(text)) => self::text(text, control, Tokens::of_score(model), model, violations),
        other if control => only_with_text(other.is_some(), violations),
        Some(Wire::Tokens(tokens)) => ids(tokens, model.limits.max_score_tokens, model, violations),
        Some(Wire::Chat(chat)) => self::chat(chat, Tokens::of_score(model), model, violations),
        None => missing("input", "set one of text, tokens and chat", violations),
    }
}

pub(super) fn tokenize(
    wire: Option<v1::tokenize_request::Input>,
    no_special_tokens: bool,
    control: bool,
    model: &Model,
    violations: &mut Violations,
) -> Option<Prompt> {
    use v1::tokenize_request::Input as Wire;
    match wire {
        Some(Wire::Text(text)) => {
            check_bytes("text", text.len(), Tokens::of_prompt(model), model, violations);
            Some(Prompt::Text { text, special: !no_special_tokens, control: control_tokens(control) })
        }
        other if control => only_with_text(other.is_some(), violations),
        Some(Wire::Chat(chat)) => {
            if no_special_tokens {
                violations
                    .add("no_special_tokens", "is only allowed with text: the chat template writes special tokens");
            }
            self::chat(chat, Tokens::of_prompt(model), model, violations)
        }
        None => missing("input", "set one of text and chat", violations),
    }
}

/// Finds ids that the model does not know.
pub(super) fn check_ids(field: &str, ids: &[u32], vocab_size: u32, violations: &mut Violations) {
    let mut unknown = ids.iter().enumerate().filter(|(_, id)| **id >= vocab_size);
    if let Some((index, id)) = unknown.next() {
        let more = match unknown.count() {
            0 => String::new(),
            n => format!(", nor do {n} more"),
        };
        violations
            .add(format!("{field}[{index}]"), format!("token {id} does not exist{more}: ids are below {vocab_size}"));
    }
}

fn missing(field: &str, what: &str, violations: &mut Violations) -> Option<Prompt> {
    violations.add(field, format!("is not set: {what}"));
    None
}

fn control_tokens(read: bool) -> ControlTokens {
    if read { ControlTokens::Read } else { ControlTokens::AsText }
}

/// `read_control_tokens` beside something else than a text, or beside nothing.
fn only_with_text(given: bool, violations: &mut Violations) -> Option<Prompt> {
    let what = if given { "tokens and conversations have their control tokens already" } else { "there is no text" };
    violations.add("read_control_tokens", format!("is only allowed with text: {what}"));
    None
}

/// Refuses a text that is too long before it is tokenized: that takes a hundred times the memory of the text. `most`: tokens that
/// the request may have.
fn check_bytes(field: &str, bytes: usize, most: Tokens, model: &Model, violations: &mut Violations) {
    let allowed = model.limits.max_text_bytes;
    let fitting = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.most_bytes(most.count));
    if bytes > allowed {
        let problem = format!(
            "has {bytes} bytes, this node takes at most {allowed} (limits.max_text_bytes): send less, or token ids"
        );
        violations.add(field, problem);
    } else if let Some(fitting) = fitting.filter(|fitting| bytes > *fitting) {
        let Tokens { count, setting } = most;
        let problem = format!(
            "has {bytes} bytes, and the {count} tokens that this node takes ({setting}) have at most {fitting}: send less"
        );
        violations.add(field, problem);
    }
}

/// Most tokens of a request, and the setting that says so.
#[derive(Clone, Copy)]
struct Tokens {
    count: usize,
    setting: &'static str,
}

impl Tokens {
    fn of_prompt(model: &Model) -> Self {
        Self { count: model.limits.max_prompt_tokens, setting: "limits.max_prompt_tokens" }
    }

    fn of_score(model: &Model) -> Self {
        Self { count: model.limits.max_score_tokens, setting: "limits.max_score_tokens" }
    }
}

fn text(text: String, control: bool, most: Tokens, model: &Model, violations: &mut Violations) -> Option<Prompt> {
    if text.is_empty() {
        violations.add("text", "is empty");
    }
    check_bytes("text", text.len(), most, model, violations);
    Some(Prompt::Text { text, special: true, control: control_tokens(control) })
}

fn ids(wire: v1::TokenIds, most: usize, model: &Model, violations: &mut Violations) -> Option<Prompt> {
    if wire.ids.is_empty() {
        violations.add("tokens.ids", "is empty: at least one token is needed");
    }
    if wire.ids.len() > most {
        violations.add("tokens.ids", format!("has {} tokens, this node takes at most {most}", wire.ids.len()));
    }
    check_ids("tokens.ids", &wire.ids, model.vocab_size, violations);
    Some(Prompt::Tokens(wire.ids))
}

fn chat(wire: v1::Chat, most: Tokens, model: &Model, violations: &mut Violations) -> Option<Prompt> {
    check_bytes("chat.messages", wire.messages.iter().map(|m| m.content.len()).sum(), most, model, violations);
    let count = wire.messages.len();
    if count == 0 || count > MAX_MESSAGES {
        violations.add("chat.messages", format!("has {count} messages, allowed are 1 to {MAX_MESSAGES}"));
    }
    let mut messages = Vec::with_capacity(count.min(MAX_MESSAGES));
    for (index, message) in wire.messages.into_iter().enumerate().take(MAX_MESSAGES) {
        match message.role.parse::<Role>() {
            Ok(role) => messages.push(Message { role, content: message.content }),
            Err(error) => {
                violations.add(format!("chat.messages[{index}].role"), format!("{} {error}", short(&message.role)));
            }
        }
    }
    Some(Prompt::Chat(messages))
}
