//! Finds the rules of a chat template by rendering short conversations: a template is a program, and its rules stand nowhere else.

use recurve_text::{ControlTokens, Message, Role, Template, TemplateError, Tokenizer};
use serde::Serialize;

use crate::generation::Generation;

/// The content of the messages: no word that a template writes.
const SAID: &str = "zqxj";

/// The rules of a chat template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatRules {
    /// Roles that it takes.
    pub roles: Vec<&'static str>,
    /// Roles that it refuses, each with its words.
    pub refused: Vec<(&'static str, String)>,
    /// Whether it refuses two user turns in a row.
    pub alternating: bool,
    /// Whether a conversation begins with the model's first token, such as `<bos>`. The daemon adds none.
    pub begins: bool,
    /// What it writes before an answer, so that the model takes its turn; empty where there is nothing.
    pub opening: String,
    /// The control token after an answer in a conversation, if it does not end answers: the model would write on.
    pub unended: Option<(u32, String)>,
}

impl ChatRules {
    /// The rules of a template that refuses every conversation in these words.
    pub(crate) fn refusing(words: String) -> Self {
        Self {
            roles: Vec::new(),
            refused: vec![(Role::User.as_str(), words)],
            alternating: false,
            begins: false,
            opening: String::new(),
            unended: None,
        }
    }

    /// Tries a template.
    ///
    /// # Errors
    /// The template refuses even a single user turn, or fails.
    pub(crate) fn of(
        template: &Template,
        tokenizer: &Tokenizer,
        generation: &Generation,
    ) -> Result<Self, TemplateError> {
        let alone = template.render_once(&turns(&[Role::User]), true)?;
        // A template may refuse a conversation without a reply to come; the daemon never asks for one.
        let without = template.render_once(&turns(&[Role::User]), false).unwrap_or_default();
        let mut rules = Self {
            roles: vec![Role::User.as_str()],
            refused: Vec::new(),
            alternating: matches!(
                template.render_once(&turns(&[Role::User, Role::User]), true),
                Err(TemplateError::Refused { .. })
            ),
            begins: generation.bos_token.map(|bos| tokenizer.token(bos)).is_some_and(|bos| {
                // An id that the tokenizer does not know is written as nothing.
                !bos.is_empty() && alone.starts_with(&bos)
            }),
            opening: alone.strip_prefix(&without).unwrap_or_default().to_owned(),
            unended: None,
        };
        for role in Role::ALL.into_iter().filter(|role| *role != Role::User) {
            let conversation = match role {
                Role::System => turns(&[role, Role::User]),
                Role::Tool => turns(&[Role::User, Role::Assistant, role]),
                _ => turns(&[Role::User, role, Role::User]),
            };
            match template.render_once(&conversation, true) {
                // A role whose content is left out counts as refused.
                Ok(text) if text.matches(SAID).count() == conversation.len() => rules.roles.push(role.as_str()),
                Ok(_) => rules.refused.push((role.as_str(), "its content is left out".to_owned())),
                Err(TemplateError::Refused { words, .. }) => rules.refused.push((role.as_str(), words)),
                Err(_) => rules.refused.push((role.as_str(), "the template fails".to_owned())),
            }
        }
        rules.unended = unended(template, tokenizer, generation);
        Ok(rules)
    }
}

/// The control token that a template writes after an answer, if it is not among those that end one.
fn unended(template: &Template, tokenizer: &Tokenizer, generation: &Generation) -> Option<(u32, String)> {
    let answered = template.render_once(&turns(&[Role::User, Role::Assistant]), false).ok()?;
    let (_, after) = answered.rsplit_once(SAID)?;
    // Some templates end the content with a line before they close the turn.
    let after = after.trim_start();
    let with = tokenizer.encode(after, ControlTokens::Read, false).ok()?;
    let as_text = tokenizer.encode(after, ControlTokens::AsText, false).ok()?;
    // The same id either way is no control token.
    let first = with.first().filter(|id| as_text.first() != Some(*id))?;
    (!generation.end_tokens.contains(first)).then(|| (*first, tokenizer.token(*first)))
}

fn turns(roles: &[Role]) -> Vec<Message> {
    roles.iter().map(|&role| Message { role, content: SAID.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use recurve_bundle::GenerationDefaults;
    use recurve_text::fixture::{BOS, GEMMA_LIKE, gemma_like};

    use super::*;

    fn rules(source: &str, end_tokens: &[u32]) -> ChatRules {
        let generation =
            Generation { defaults: GenerationDefaults::new(), bos_token: Some(BOS), end_tokens: end_tokens.to_vec() };
        let template = Template::new(source.to_owned(), "<bos>".to_owned(), "<eos>".to_owned()).unwrap();
        ChatRules::of(&template, &gemma_like(), &generation).unwrap()
    }

    #[test]
    fn gemmas_rules_are_found() {
        let found = rules(GEMMA_LIKE, &[1, 5]);
        assert_eq!(found.roles, ["user", "assistant", "model"]);
        let refused: Vec<&str> = found.refused.iter().map(|(role, _)| *role).collect();
        assert_eq!((refused, found.refused[0].1.as_str()), (vec!["system", "tool"], "no system turn"));
        assert!(found.alternating && found.begins);
        assert_eq!((found.opening.as_str(), found.unended), ("<start_of_turn>model\n", None));
        assert_eq!(rules(GEMMA_LIKE, &[1]).unended, Some((5, "<end_of_turn>".to_owned())));
    }

    #[test]
    fn a_template_without_rules_has_none() {
        let found = rules("{% for m in messages %}{{ m.content }}\n{% endfor %}", &[1]);
        assert_eq!(found.roles, ["user", "system", "assistant", "model", "tool"]);
        assert!(found.refused.is_empty() && !found.alternating && !found.begins);
        assert_eq!((found.opening.as_str(), found.unended), ("", None));
        let deaf =
            rules("{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}", &[1]);
        assert_eq!(deaf.refused, [("system", "its content is left out".to_owned())]);
    }
}
