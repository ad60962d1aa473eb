//! A conversation to text, by the checkpoint's own chat template, as Hugging Face renders it.

use std::error::Error as _;
use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize as _;

/// Instructions, and pieces of 64 bytes, that one rendering may use.
const FUEL: u64 = 2_000_000;
const NAME: &str = "chat_template.jinja";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose turn: "user", "assistant", … as the template knows them.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A checkpoint's chat template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// Why a template gave no text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The template is not valid: the bundle is at fault.
    #[error("chat_template.jinja is not valid: {0}")]
    Malformed(String),
    /// The template called `raise_exception`: the conversation is at fault.
    #[error("{0}")]
    Refused(String),
    /// The template failed, or did more than a template should.
    #[error("chat_template.jinja failed: {0}")]
    Failed(String),
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl Template {
    /// Compiles a template. `bos_token` and `eos_token` are what it writes for these.
    ///
    /// # Errors
    /// The template is not valid.
    pub fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        let malformed = |error: Error| TemplateError::Malformed(describe(&error));
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(malformed)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, source).map_err(malformed)?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The text of a conversation, ready for the model's answer.
    ///
    /// # Errors
    /// The template refuses the conversation, or fails.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        self.environment.get_template(NAME).and_then(|template| template.render(context)).map_err(|error| match raised(
            &error,
        ) {
            Some(message) => TemplateError::Refused(message),
            None => TemplateError::Failed(describe(&error)),
        })
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// The message of `raise_exception`, if that is what ended the rendering.
fn raised(error: &Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// The local time by Python's format.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format {format:?}")))?;
    Ok(text)
}

/// JSON as Python's `json.dumps(…, ensure_ascii=False)` writes it, without escaping for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted and without effect, as these are what is done anyway.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let result = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter)),
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
    };
    let failed = |detail: String| Error::new(ErrorKind::BadSerialization, detail);
    result.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map(Value::from).map_err(|error| failed(error.to_string()))
}

/// Separators ", " and ": ".
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// What is wrong and in which line, without the values of the conversation.
fn describe(error: &Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The rules that Gemma's template has: <bos>, alternating turns, no system turn, the assistant is "model".
    pub(crate) const GEMMA_LIKE: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
        {{ raise_exception('no system turn') }}{% endif %}\
        {% for message in messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}\
        {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}\
        {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

    fn template(source: &str) -> Template {
        Template::new(source.into(), "<bos>".into(), "<eos>".into()).unwrap()
    }

    fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
        turns.iter().map(|(role, content)| Message { role: (*role).into(), content: (*content).into() }).collect()
    }

    fn render(source: &str) -> Result<String, TemplateError> {
        template(source).render(&messages(&[("user", "<a> & é")]))
    }

    #[test]
    fn a_conversation_becomes_turns() {
        let turns = messages(&[("user", " Hi "), ("assistant", "Hello."), ("user", "{{ 1 + 1 }}")]);
        assert_eq!(
            template(GEMMA_LIKE).render(&turns).unwrap(),
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n\
             <start_of_turn>user\n{{ 1 + 1 }}<end_of_turn>\n<start_of_turn>model\n"
        );
    }

    #[test]
    fn refusals_carry_the_templates_words() {
        for (turns, words) in [
            (messages(&[("system", "x")]), "no system turn"),
            (messages(&[("user", "x"), ("user", "y")]), "turns must alternate"),
        ] {
            assert_eq!(template(GEMMA_LIKE).render(&turns), Err(TemplateError::Refused(words.into())));
        }
    }

    #[test]
    fn what_templates_use_is_there() {
        for (source, expected) in [
            ("{{ messages[0].content.upper() }}", "<A> & É"),
            ("{{ messages[0]['content'].split(' ')[1].strip() }}", "&"),
            ("{{ messages[0].get('name', 'none') }}", "none"),
            ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", ""),
            ("{% for i in [1, 2] %}{% break %}{% endfor %}", ""),
            ("{{ messages | tojson }}", r#"[{"role": "user", "content": "<a> & é"}]"#),
            ("{{ {'a': [1, 2]} | tojson(indent=1) }}", "{\n \"a\": [\n  1,\n  2\n ]\n}"),
            ("{{ {'b': 1, 'a': none} | tojson }}", r#"{"b": 1, "a": null}"#),
            ("{% set ns = namespace(n=0) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
            ("{{ bos_token }}{{ eos_token }}", "<bos><eos>"),
            ("{% if tools is defined %}x{% endif %}{{ messages | length }}", "1"),
            ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
            ("{{ strftime_now('%Y')|length }}", "4"),
            ("{{ messages[0]['content'] | replace('<a>', 'b') }}", "b & é"),
            ("{%- macro m(x) -%}[{{ x }}]{%- endmacro -%}{{ m('y') }}", "[y]"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn failures_name_the_line_and_end() {
        let failed = |source: &str| match render(source) {
            Err(TemplateError::Failed(text)) => text,
            other => panic!("{source}: {other:?}"),
        };
        assert!(failed("\n{{ nothing.at.all }}").contains("line 2"));
        assert!(
            failed("{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}").contains("fuel")
        );
        assert!(failed("{{ strftime_now('%!') }}").contains("strftime_now"));
        let malformed = Template::new("{% if %}".into(), String::new(), String::new());
        assert!(matches!(malformed, Err(TemplateError::Malformed(text)) if text.contains("line 1")));
    }
}
