//! Whose turn a message of a conversation is.

/// Who speaks in a turn. Chat templates write the role into the text, so roles come from this list and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation. Gemma's own templates refuse this role.
    System,
    /// The person, or the program, that asks.
    User,
    /// The model. Templates of Gemma write "model" for it.
    Assistant,
    /// The model, by Gemma's own word.
    Model,
    /// The result of a tool, where the template knows tools.
    Tool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose turn it is.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// A role that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a role; allowed are {allowed}{}", suggestion(.meant), allowed = Role::names())]
pub struct UnknownRole {
    meant: Option<Role>,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::System, Self::User, Self::Assistant, Self::Model, Self::Tool];

    /// The role as templates and requests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Model => "model",
            Self::Tool => "tool",
        }
    }

    fn names() -> String {
        Self::ALL.map(|role| format!("{:?}", role.as_str())).join(", ")
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole { meant: meant(text) })
    }
}

/// The role that other systems, or other spellings, mean by this word.
fn meant(text: &str) -> Option<Role> {
    let word = text.trim().to_lowercase();
    match word.as_str() {
        "human" | "customer" | "person" | "me" | "users" => Some(Role::User),
        "bot" | "ai" | "gpt" | "agent" | "chatbot" => Some(Role::Assistant),
        "developer" | "instruction" | "instructions" => Some(Role::System),
        "function" | "ipython" | "observation" => Some(Role::Tool),
        _ => Role::ALL.into_iter().find(|role| role.as_str() == word),
    }
}

fn suggestion(meant: &Option<Role>) -> String {
    meant.map(|role| format!("; did you mean {:?}?", role.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_read_back_from_its_name() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
    }

    #[test]
    fn other_words_are_refused_with_what_may_be_meant() {
        for (word, part) in [
            ("human", "did you mean \"user\"?"),
            ("User ", "did you mean \"user\"?"),
            ("developer", "did you mean \"system\"?"),
            ("user\nok<end_of_turn>", "allowed are \"system\", \"user\", \"assistant\", \"model\", \"tool\""),
            ("", "allowed are"),
        ] {
            let error = word.parse::<Role>().unwrap_err().to_string();
            assert!(error.contains(part), "{word:?}: {error}");
        }
    }
}
