//! Regular expressions of a tokenizer that give up silently.
//!
//! The crate `tokenizers` matches with `fancy-regex`, which gives up after a million steps back, and takes that for the end
//! of the text: the ids would be others than Hugging Face's, without an error (`src/utils/fancy.rs` there). Patterns that
//! can get that far on a text of plausible length are refused.

use fancy_regex::Regex;
use serde_json::Value;

/// Repetitions in a text that a pattern is tried on.
const LENGTH: usize = 20_000;
/// The repeated unit and the end of each text that a pattern is tried on.
const PROBES: [(&str, &str); 9] =
    [(" ", "x"), ("\n", "x"), ("a", "!"), ("A", "!"), ("1", "!"), ("!", "a"), ("é", "!"), ("a ", "!"), ("a1", "!")];

/// Why a pattern cannot be used: it, and the reason.
pub(crate) type Refused = (String, String);

/// Tries every regular expression in a part of a `tokenizer.json`.
///
/// # Errors
/// One of them cannot be compiled, or gives up.
pub(crate) fn check(part: &Value) -> Result<(), Refused> {
    match part {
        Value::Object(entries) => entries.iter().try_for_each(|(name, value)| match value {
            Value::String(pattern) if name == "Regex" => try_out(pattern),
            other => check(other),
        }),
        Value::Array(members) => members.iter().try_for_each(check),
        _ => Ok(()),
    }
}

fn try_out(pattern: &str) -> Result<(), Refused> {
    let refused = |reason: String| (pattern.to_owned(), reason);
    let regex = Regex::new(pattern).map_err(|error| refused(error.to_string()))?;
    for (unit, end) in PROBES {
        let text = unit.repeat(LENGTH) + end;
        if let Some(Err(error)) = regex.find_iter(&text).find(Result::is_err) {
            return Err(refused(format!("it gives up on a text of {LENGTH} times {unit:?} ({error})")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_of_published_tokenizers_pass() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            "[^a]+",
        ] {
            check(&json!({"type": "Split", "pattern": {"Regex": pattern}})).unwrap();
        }
    }

    #[test]
    fn patterns_that_give_up_are_refused_wherever_they_stand() {
        let nested = json!({"type": "Sequence", "pretokenizers": [{"pattern": {"Regex": r"(?:a(?!x)|aa(?!x))+c"}}]});
        let (pattern, reason) = check(&nested).unwrap_err();
        assert_eq!(pattern, r"(?:a(?!x)|aa(?!x))+c");
        assert!(reason.contains("20000 times \"a\""), "{reason}");
        assert!(check(&json!({"pattern": {"Regex": "("}})).is_err());
        assert!(check(&json!({"pattern": {"String": "("}})).is_ok());
    }
}
