//! Text in and out of the model: tokenizer, chat template, and streams of tokens that become text.
//!
//! A conversation becomes text by the checkpoint's own template ([`Template`]), text becomes token ids by its own
//! tokenizer ([`Tokenizer`]), and token ids become text again, whole characters only ([`Detokenizer`]). Text that callers
//! wrote never becomes a control token ([`encode_chat`]), unless they ask for it.

mod bounded;
mod chat;
mod control;
mod detokenize;
mod file;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod functions;
mod pattern;
mod role;
mod tags;
mod template;
mod tokenizer;

pub use chat::{ChatError, encode_chat};
pub use detokenize::Detokenizer;
pub use role::{Message, Role, UnknownRole};
pub use template::{MAX_TEMPLATE_BYTES, Template, TemplateError};
pub use tokenizer::{ControlTokens, Tokenizer, TokenizerError};
