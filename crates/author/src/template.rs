//! A checkpoint's chat template, in any of the places where transformers has written it.

use std::fs;
use std::path::Path;

use recurve_text::{Template, TemplateError, Tokenizer};
use serde_json::Value;

use crate::chat::ChatRules;
use crate::error::ExportError;
use crate::generation::Generation;
use crate::json::{self, Object};

/// The template of newer versions, alone in a file.
const FILE: &str = "chat_template.jinja";
/// The tokenizer's settings, which have it as a field.
const SETTINGS: &str = "tokenizer_config.json";
/// A field in a file of its own, as processors wrote it.
const FIELD_FILE: &str = "chat_template.json";
/// Named templates of newer versions, besides the first file's.
const MORE: &str = "additional_chat_templates";
const FIELD: &str = "chat_template";
/// The name of the template that is taken out of several.
const DEFAULT: &str = "default";

/// The chat templates of a checkpoint.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    /// The template that the bundle has.
    pub text: Option<String>,
    /// The file that it comes from.
    pub from: Option<String>,
    /// Templates that the checkpoint has besides, which the bundle leaves out.
    pub unused: Vec<String>,
}

impl ChatTemplate {
    /// Reads the templates in a checkpoint's folder. `chat_template.jinja` goes before `tokenizer_config.json`, as in
    /// transformers, and `chat_template.json` comes last.
    ///
    /// # Errors
    /// A file cannot be read, or has a template that is neither a text nor a list of named ones with a default.
    pub(crate) fn read(dir: &Path) -> Result<Self, ExportError> {
        let mut found = Self::default();
        if let Some(text) = json::read_text(&dir.join(FILE))? {
            found.take(text, FILE);
        }
        for name in [SETTINGS, FIELD_FILE] {
            for (kind, text) in of_field(&dir.join(name))? {
                match kind {
                    None => found.take(text, name),
                    Some(kind) if kind == DEFAULT => found.take(text, name),
                    Some(kind) => found.unused.push(format!("{kind} in {name}")),
                }
            }
        }
        let mut more: Vec<String> = fs::read_dir(dir.join(MORE))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| format!("{MORE}/{}", entry.file_name().display()))
            .filter(|name| name.ends_with(".jinja"))
            .collect();
        more.sort();
        found.unused.extend(more);
        Ok(found)
    }

    /// Compiles the template and renders conversations with it, as the daemon will, so that a template that cannot be served is
    /// not exported. Returns its rules; none where there is no template.
    pub(crate) fn rules(
        &self,
        dir: &Path,
        tokenizer: &Tokenizer,
        generation: &Generation,
    ) -> Result<Option<ChatRules>, ExportError> {
        let (Some(text), Some(from)) = (&self.text, &self.from) else {
            return Ok(None);
        };
        let word = |id: Option<u32>| id.map(|id| tokenizer.token(id)).unwrap_or_default();
        let (bos, eos) = (word(generation.bos_token), word(generation.end_tokens.first().copied()));
        if text.contains("eos_token") {
            check_end(&dir.join(SETTINGS), &eos)?;
        }
        let compiled = Template::new(text.clone(), bos, eos);
        match compiled.and_then(|template| ChatRules::of(&template, tokenizer, generation)) {
            Ok(rules) => Ok(Some(rules)),
            Err(TemplateError::Refused { words, .. }) => Ok(Some(ChatRules::refusing(words))),
            Err(error) => Err(ExportError::Malformed { path: dir.join(from), problem: error.to_string() }),
        }
    }

    /// The first one counts.
    fn take(&mut self, text: String, from: &str) {
        match &self.text {
            None => (self.text, self.from) = (Some(text), Some(from.to_owned())),
            // The same one twice is no other one.
            Some(taken) if *taken == text => {}
            Some(_) => self.unused.push(from.to_owned()),
        }
    }
}

/// Whether the tokenizer's settings give templates this end token, as the daemon does.
fn check_end(settings: &Path, end: &str) -> Result<(), ExportError> {
    let allowed = "a token, as a text or with the field \"content\"";
    let set = Object::read_optional(settings)?.convert("eos_token", allowed, |value| {
        value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
    })?;
    match set.filter(|set| set != end) {
        None => Ok(()),
        Some(set) => Err(ExportError::Malformed {
            path: settings.to_owned(),
            problem: format!(
                "`eos_token` is {set:?}, and the first end token of the model is {end:?}; the chat template writes it: put the \
                 id of {set:?} first in eos_token_id of generation_config.json"
            ),
        }),
    }
}

/// The templates in the field `chat_template` of a file, each with its name where it has one.
fn of_field(path: &Path) -> Result<Vec<(Option<String>, String)>, ExportError> {
    let file = Object::read_optional(path)?;
    let allowed = "a text, or a list of {\"name\", \"template\"} with one named \"default\"";
    let named =
        |entry: &Value| Some((Some(entry["name"].as_str()?.to_owned()), entry["template"].as_str()?.to_owned()));
    let templates = file.convert(FIELD, allowed, |value| match value {
        Value::String(text) => Some(vec![(None, text.clone())]),
        Value::Array(list) => {
            let list: Vec<_> = list.iter().map(named).collect::<Option<_>>()?;
            list.iter().any(|(name, _)| name.as_deref() == Some(DEFAULT)).then_some(list)
        }
        _ => None,
    })?;
    Ok(templates.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<ChatTemplate, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(MORE)).unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        ChatTemplate::read(dir.path()).map_err(|error| error.to_string())
    }

    /// Files by name and content, the text and file that are taken, and what is named as not taken.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>, &'a [&'a str]);

    #[test]
    fn the_end_token_of_the_settings_is_the_models() {
        let dir = tempfile::tempdir().unwrap();
        let settings = dir.path().join(SETTINGS);
        let check = |content: Value| {
            fs::write(&settings, content.to_string()).unwrap();
            check_end(&settings, "<eos>").map_err(|error| error.to_string())
        };
        for good in [
            json!({}),
            json!({"eos_token": null}),
            json!({"eos_token": "<eos>"}),
            json!({"eos_token": {"content": "<eos>"}}),
        ] {
            check(good).unwrap();
        }
        let error = check(json!({"eos_token": "<end_of_turn>"})).unwrap_err();
        assert!(error.contains(r#"`eos_token` is "<end_of_turn>""#) && error.contains("eos_token_id"), "{error}");
        assert!(check(json!({"eos_token": 1})).unwrap_err().contains("eos_token"));
    }

    #[test]
    fn every_place_is_looked_at_and_the_rest_is_named() {
        let field = |template: &str| json!({"chat_template": template}).to_string();
        let list = json!({"chat_template": [
            {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"},
        ]});
        let (a, b, list) = (field("a"), field("b"), list.to_string());
        let more = "additional_chat_templates/rag.jinja";
        let cases: [Case<'_>; 8] = [
            (&[], None, &[]),
            (&[(SETTINGS, "{}")], None, &[]),
            (&[(SETTINGS, &a)], Some(("a", SETTINGS)), &[]),
            (&[(SETTINGS, &list)], Some(("d", SETTINGS)), &["tool_use in tokenizer_config.json"]),
            (&[(FILE, "j"), (SETTINGS, &a), (FIELD_FILE, &b)], Some(("j", FILE)), &[SETTINGS, FIELD_FILE]),
            (&[(FIELD_FILE, &b), (SETTINGS, &a)], Some(("a", SETTINGS)), &[FIELD_FILE]),
            (&[(FIELD_FILE, &a), (SETTINGS, &a)], Some(("a", SETTINGS)), &[]),
            (&[(more, "r")], None, &[more]),
        ];
        for (files, taken, unused) in cases {
            let found = read(files).unwrap();
            let have = found.text.as_deref().zip(found.from.as_deref());
            assert_eq!((have, found.unused), (taken, unused.iter().map(ToString::to_string).collect()), "{files:?}");
        }
        assert_eq!(read(&[(FIELD_FILE, &b)]).unwrap().from.as_deref(), Some(FIELD_FILE));
        for wrong in [json!(7), json!([{"name": "x", "template": "y"}]), json!([{"name": "default"}])] {
            let error = read(&[(SETTINGS, &json!({"chat_template": wrong}).to_string())]).unwrap_err();
            assert!(error.contains("chat_template"), "{error}");
        }
    }
}
