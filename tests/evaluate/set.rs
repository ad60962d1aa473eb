//! Conversations whose last reply is known.

use std::fmt;
use std::path::Path;

use recurve_proto::v1::ChatMessage;

use crate::Failure;

/// A file of conversations.
#[derive(Debug)]
pub(crate) struct Set {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) talks: Vec<Talk>,
}

/// Turns that are given, and one that is asked.
#[derive(Debug, PartialEq)]
pub(crate) struct Talk {
    given: Vec<(String, String)>,
    prompt: String,
    /// `None`: any reply without a device's action.
    reply: Option<String>,
}

impl Set {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        let mut talks = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let talk = Talk::parse(line).ok_or_else(|| {
                format!(
                    "{}: line {}: must be a JSON list of [prompt, reply], the last reply a text or null, those before it texts",
                    path.display(),
                    number + 1
                )
            })?;
            talks.push(talk);
        }
        if talks.is_empty() {
            return Err(format!("{}: holds no conversations", path.display()).into());
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, talks })
    }
}

impl Talk {
    fn parse(line: &str) -> Option<Self> {
        let mut turns: Vec<(String, Option<String>)> = serde_json::from_str(line).ok()?;
        let (prompt, reply) = turns.pop()?;
        let given = turns.into_iter().map(|(prompt, reply)| Some((prompt, reply?))).collect::<Option<_>>()?;
        Some(Self { given, prompt, reply })
    }

    /// All turns up to the one that is asked.
    pub(crate) fn messages(&self) -> Vec<ChatMessage> {
        let said = |role: &str, content: &String| ChatMessage { role: role.to_owned(), content: content.clone() };
        let given = self.given.iter().flat_map(|(prompt, reply)| [said("user", prompt), said("assistant", reply)]);
        given.chain([said("user", &self.prompt)]).collect()
    }

    pub(crate) fn is_answered_by(&self, answer: &str) -> bool {
        match &self.reply {
            Some(reply) => answer == reply,
            None => !answer.is_empty() && !answer.contains('{'),
        }
    }
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (prompt, reply) in &self.given {
            writeln!(f, "> {prompt}\n{reply}")?;
        }
        writeln!(f, "> {}\nexpected: {}", self.prompt, self.reply.as_deref().unwrap_or("no action"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_conversations_are_taken() {
        let talk = Talk::parse(r#"[["a", "b"], ["c", null]]"#).unwrap();
        let roles: Vec<String> = talk.messages().into_iter().map(|message| message.role + &message.content).collect();
        assert_eq!(roles, ["usera", "assistantb", "userc"]);
        for wrong in ["[]", "[[\"a\"]]", "[[\"a\", null], [\"b\", \"c\"]]", "{}", ""] {
            assert_eq!(Talk::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_right_as_a_whole_or_where_it_has_no_action() {
        let known = Talk::parse(r#"[["a", "b"]]"#).unwrap();
        assert!(known.is_answered_by("b") && !known.is_answered_by("b "));
        let refusal = Talk::parse(r#"[["a", null]]"#).unwrap();
        assert!(refusal.is_answered_by("I only know the house."));
        assert!(!refusal.is_answered_by("{\"device\":\"light\"}") && !refusal.is_answered_by(""));
    }
}
