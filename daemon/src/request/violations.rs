//! Why a request cannot be done.

/// Most violations told at once: they travel in a header, whose size is limited.
const MOST: usize = 16;

/// A wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the message, as in `sampling.top_p` or `tokens.ids[3]`.
    pub field: String,
    /// Its value, what is wrong with it and what is allowed.
    pub description: String,
}

/// Why a request cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Fields are wrong; at least one.
    #[error("{}", summary(.0))]
    Invalid(Vec<Violation>),
    /// It needs a tokenizer.
    #[error("this bundle has no tokenizer: give token ids, and no stop strings")]
    NoTokenizer,
    /// It is a conversation.
    #[error("this bundle has no chat template: give text or token ids")]
    NoChatTemplate,
    /// The chat template refused the conversation.
    #[error("the model's chat template refuses this conversation{}: {words}", at(.turn))]
    TemplateRefused {
        /// What the template says.
        words: String,
        /// The index of the message from which on it is refused.
        turn: Option<usize>,
    },
    /// Too many long texts wait to be tokenized.
    #[error("{limit} long texts wait to be tokenized already and no more may: ask again, or give token ids")]
    Busy {
        /// Texts that may wait.
        limit: usize,
    },
    /// The system has no memory or no thread for it at the moment.
    #[error("this node has too little memory for this request at the moment ({0}): ask again, or ask another node")]
    Shortage(String),
    /// Tokenizer or template failed, or the bundle's parts do not fit together.
    #[error("{0}")]
    Bundle(String),
}

impl RequestError {
    /// One wrong field.
    pub(super) fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// A required field is not set.
    pub(super) fn missing(field: &str) -> Self {
        Self::invalid(field, "is not set")
    }
}

fn at(turn: &Option<usize>) -> String {
    turn.map(|turn| format!(" from chat.messages[{turn}] on")).unwrap_or_default()
}

fn summary(violations: &[Violation]) -> String {
    let all: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    all.join("; ")
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<Violation>,
    more: usize,
}

impl Violations {
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push(Violation { field: field.into(), description: description.into() });
        } else {
            self.more += 1;
        }
    }

    /// # Errors
    /// All that was found, if anything was.
    pub(super) fn none(mut self) -> Result<(), RequestError> {
        if self.more > 0
            && let Some(last) = self.found.last_mut()
        {
            last.description.push_str(&format!(" (and {} more)", self.more));
        }
        if self.found.is_empty() { Ok(()) } else { Err(RequestError::Invalid(self.found)) }
    }
}

/// The beginning of a text, for a message.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(32).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
