//! A conversation to text, by the checkpoint's own chat template, as Hugging Face renders it.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::bounded::{self, BoundedError};
use crate::role::{Message, Role};
use crate::{functions, tags};

/// Instructions, and pieces of 64 bytes, that one rendering may use.
const FUEL: u64 = 2_000_000;
/// Calls of macros inside each other.
const DEPTH: usize = 100;
/// Largest size of a template, in bytes. Published templates have at most some 30,000.
pub const MAX_TEMPLATE_BYTES: usize = 128 << 10;
/// Largest size of one tag in it, strings not counted. The time to compile a chain of operators grows with the square of its
/// length, and the stack with its length.
const MAX_TAG_BYTES: usize = 4 << 10;
const NAME: &str = "chat_template.jinja";

/// A checkpoint's chat template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    source: String,
    bos_token: String,
    eos_token: String,
}

/// Why a template gave no text.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The template is not valid: the bundle is at fault.
    #[error("the chat template is not valid: {0}")]
    Malformed(String),
    /// The template called `raise_exception`: the conversation is at fault.
    #[error("{words}")]
    Refused {
        /// What the template says.
        words: String,
        /// The index of the message up to which the template refuses the conversation, where there is one.
        turn: Option<usize>,
    },
    /// The template decides by what stands in a message that holds characters of control tokens.
    #[error(
        "the chat template looks for control tokens inside the messages, and a message has one of their characters: \
         send the conversation without them"
    )]
    LooksInside,
    /// The messages use so many private-use characters that none is left to mark control tokens by.
    #[error(
        "the conversation has nearly all of the private-use characters U+E000 to U+F8FF, and control tokens in it cannot be told \
         from the template's: send it without them"
    )]
    NoMask,
    /// The system gives no thread to work on: this machine is at fault, for a moment.
    #[error("{0}")]
    NoThread(String),
    /// The template failed, or did more than a template should.
    #[error("the chat template failed: {0}")]
    Failed(String),
}

impl Template {
    /// Compiles a template. `bos_token` and `eos_token` are what it writes for these.
    ///
    /// # Errors
    /// The template is not valid, or it or one of its tags is too large.
    pub fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let problem = format!("it has {} bytes, allowed are {MAX_TEMPLATE_BYTES}", source.len());
            return Err(TemplateError::Malformed(problem));
        }
        let longest = tags::longest(&source);
        if longest > MAX_TAG_BYTES {
            let problem = format!("a tag has {longest} bytes beside its strings, allowed are {MAX_TAG_BYTES}");
            return Err(TemplateError::Malformed(problem));
        }
        let environment = bounded::run(|| compile(&source)).map_err(|error| match error {
            BoundedError::Thread(_) => TemplateError::NoThread(error.to_string()),
            BoundedError::Panicked(_) => TemplateError::Malformed(error.to_string()),
        })?;
        let environment = environment.map_err(|error| TemplateError::Malformed(describe(&error)))?;
        Ok(Self { environment, source, bos_token, eos_token })
    }

    /// Renders a conversation of one turn, so that a template that always fails is found before anybody asks.
    ///
    /// # Errors
    /// The template fails. A template that refuses the conversation passes.
    pub fn check(&self) -> Result<(), TemplateError> {
        match self.render_once(&[Message { role: Role::User, content: "Hello".to_owned() }], true) {
            Ok(_) | Err(TemplateError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The template as it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, ready for the model's answer.
    ///
    /// # Errors
    /// The template refuses the conversation, or fails.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let result = self.render_once(messages, true);
        let Err(TemplateError::Refused { words, .. }) = result else { return result };
        let turn = self.refused_turn(messages, &words);
        Err(TemplateError::Refused { words, turn })
    }

    /// The text of a conversation. With `reply`, ready for the model's answer.
    ///
    /// # Errors
    /// The template refuses the conversation, without naming the turn, or fails.
    pub fn render_once(&self, messages: &[Message], reply: bool) -> Result<String, TemplateError> {
        // Values that a template nests into each other are dropped recursively, so that this, too, needs a known stack.
        bounded::run(|| self.render_here(messages, reply)).unwrap_or_else(|error| match error {
            BoundedError::Thread(_) => Err(TemplateError::NoThread(error.to_string())),
            BoundedError::Panicked(_) => Err(TemplateError::Failed(error.to_string())),
        })
    }

    fn render_here(&self, messages: &[Message], reply: bool) -> Result<String, TemplateError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => reply,
            // As transformers passes them where the caller gives none.
            tools => (),
            documents => (),
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(context));
        rendered.map_err(|error| match functions::raised(&error) {
            Some(words) => TemplateError::Refused { words, turn: None },
            None => TemplateError::Failed(describe(&error)),
        })
    }

    /// The last message of the shortest beginning of the conversation that is refused in the same words.
    fn refused_turn(&self, messages: &[Message], words: &str) -> Option<usize> {
        let refused = |count: usize| matches!(self.render_once(&messages[..count], true), Err(TemplateError::Refused { words: said, .. }) if said == words);
        // A beginning of `good` messages is not refused, one of `bad` messages is.
        let (mut good, mut bad) = (0, messages.len());
        if bad == 0 || refused(0) {
            return None;
        }
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            if refused(middle) { bad = middle } else { good = middle }
        }
        Some(bad - 1)
    }
}

fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    functions::register(&mut environment);
    environment.add_template_owned(NAME, tags::without_generation(source))?;
    Ok(environment)
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
mod tests {
    use super::*;
    use crate::fixture::{GEMMA_LIKE, messages};

    fn template(source: &str) -> Template {
        Template::new(source.into(), "<bos>".into(), "<eos>".into()).unwrap()
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
    fn refusals_carry_the_templates_words_and_name_the_turn() {
        let alternating = [("user", "x"), ("assistant", "y"), ("user", "z")];
        let twice = [alternating.as_slice(), &[("user", "x")], &alternating].concat();
        for (turns, words, turn) in [
            (messages(&[("system", "x"), ("user", "y")]), "no system turn", Some(0)),
            (messages(&[("user", "x"), ("user", "y")]), "turns must alternate", Some(1)),
            (messages(&twice), "turns must alternate", Some(3)),
        ] {
            let refused = TemplateError::Refused { words: words.into(), turn };
            assert_eq!(template(GEMMA_LIKE).render(&turns), Err(refused));
        }
        let always = "{{ raise_exception('never') }}";
        let refused = TemplateError::Refused { words: "never".into(), turn: None };
        assert_eq!(template(always).render(&messages(&alternating)), Err(refused));
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
            ("{% if tools is defined and tools is none and not documents %}x{% endif %}{{ messages | length }}", "x1"),
            ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
            ("{{ strftime_now('%Y')|length }}", "4"),
            ("{{ messages[0]['content'] | replace('<a>', 'b') }}", "b & é"),
            ("{%- macro m(x) -%}[{{ x }}]{%- endmacro -%}{{ m('y') }}", "[y]"),
            ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", "<a> & é"),
            ("{{ messages[1:] | length }}{{ messages[::-1][0].role }}", "0user"),
            (
                "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ loop.previtem is defined }}{% endfor %}",
                "False",
            ),
            ("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}", "role;content;"),
            ("{{ messages[0].content is string }}{{ messages[0] is mapping }}", "TrueTrue"),
            ("{{ messages[0].content.startswith('<a>') }}{{ messages[0].content.rstrip('é') }}", "True<a> & "),
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
        assert!(template("{{ nothing.at.all }}").check().is_err());
        assert!(template(GEMMA_LIKE).check().is_ok() && template("{{ raise_exception('no') }}").check().is_ok());
        let malformed = Template::new("{% if %}".into(), String::new(), String::new());
        assert!(matches!(malformed, Err(TemplateError::Malformed(text)) if text.contains("line 1")));
    }

    /// `unit` as often as a template, or a tag, of the largest allowed size holds it.
    fn fill(before: &str, unit: &str, after: &str) -> String {
        let most = if unit.starts_with('{') { MAX_TEMPLATE_BYTES } else { MAX_TAG_BYTES };
        format!("{before}{}{after}", unit.repeat((most - before.len() - after.len()) / unit.len()))
    }

    #[test]
    fn nesting_of_every_kind_ends_in_an_error_or_a_text() {
        for source in [
            fill("{{ ", "(", ""),
            fill("{{ ", "[", ""),
            fill("{{ ", "not ", "1 }}"),
            fill("{{ ", "-", "1 }}"),
            fill("{{ ", "1+", "1 }}"),
            fill("{{ ", "1~", "1 }}"),
            fill("{{ ", "1 if 1 else ", "1 }}"),
            fill("{{ 1", "|int", " }}"),
            fill("{{ ", "a.", "a }}"),
            fill("{{ ", "1<", "1 }}"),
            fill("{{ ", "1 and ", "1 }}"),
            fill("{{ ", "1**", "1 }}"),
            fill("{{ a", "()", " }}"),
            fill("", "{% if 1 %}", ""),
            fill("", "{% for x in [1] %}", ""),
            fill("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
            fill("", "{% macro m() %}", ""),
            fill("", "{% set x %}", ""),
        ] {
            if let Ok(template) = Template::new(source, String::new(), String::new()) {
                let _ = template.render_once(&[], true);
            }
        }
    }

    #[test]
    fn a_chain_of_operators_is_refused_before_it_is_parsed() {
        let error =
            Template::new(format!("{{{{ {}1 }}}}", "1+".repeat(8000)), String::new(), String::new()).unwrap_err();
        assert!(error.to_string().contains("a tag has 16003 bytes beside its strings, allowed are 4096"), "{error}");
    }

    #[test]
    fn values_nested_while_rendering_end_in_an_error_or_a_text() {
        for source in [
            "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% for j in range(99) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ] {
            let _ = template(source).render_once(&[], true);
        }
    }

    #[test]
    fn a_template_that_is_too_large_is_refused() {
        let error = Template::new("x".repeat(MAX_TEMPLATE_BYTES + 1), String::new(), String::new()).unwrap_err();
        assert!(error.to_string().contains("131073 bytes, allowed are 131072"), "{error}");
    }
}
