//! The tags of a chat template, before it is parsed.

/// Bytes of the longest tag (`{{ … }}` or `{% … %}`), the strings in it not counted. A tag that does not end counts up to
/// the end of the template.
pub(crate) fn longest(source: &str) -> usize {
    let counted = |part| match part {
        Part::Tag { counted, .. } => counted,
        Part::Text(_) => 0,
    };
    Parts { rest: source }.map(counted).max().unwrap_or_default()
}

/// A template without the tags `{% generation %}` and `{% endgeneration %}`, by which Hugging Face's templates mark what the
/// model wrote. Rendering takes no notice of them, but other template engines do not know them: each becomes a block that is
/// always rendered. Marks for white space stay.
pub(crate) fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for part in (Parts { rest: source }) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Tag { tag, .. } => {
                let word = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}")).unwrap_or_default();
                match word.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
                    "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
                    "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
                    _ => out.push_str(tag),
                }
            }
        }
    }
    out
}

/// A part of a template, as the lexer of `minijinja` splits it.
enum Part<'s> {
    /// Text, a comment, or a raw block (`{% raw %} … {% endraw %}`): nothing in it is a tag.
    Text(&'s str),
    /// A tag with its delimiters, and its bytes between them without its strings.
    Tag { tag: &'s str, counted: usize },
}

/// The parts of a template: together they are the whole.
struct Parts<'s> {
    rest: &'s str,
}

impl<'s> Iterator for Parts<'s> {
    type Item = Part<'s>;

    fn next(&mut self) -> Option<Part<'s>> {
        let rest = self.rest;
        let begins = |at: &usize| matches!(&rest.as_bytes()[*at..*at + 2], b"{{" | b"{%" | b"{#");
        let (part, end) = match (0..rest.len().saturating_sub(1)).find(begins) {
            None if rest.is_empty() => return None,
            None => (Part::Text(rest), rest.len()),
            Some(at @ 1..) => (Part::Text(&rest[..at]), at),
            Some(0) => {
                let opened = &rest[2..];
                let kind = rest.as_bytes()[1];
                let verbatim = match kind {
                    b'#' => Some(opened.find("#}").map_or(rest.len(), |end| 2 + end + 2)),
                    b'%' => basic(opened, "raw").map(|begin| end_of_raw(rest, 2 + begin)),
                    _ => None,
                };
                match verbatim {
                    Some(end) => (Part::Text(&rest[..end]), end),
                    None => {
                        let (counted, end) = measure(opened.as_bytes(), if kind == b'{' { b"}}" } else { b"%}" });
                        (Part::Tag { tag: &rest[..2 + end], counted }, 2 + end)
                    }
                }
            }
        };
        self.rest = &rest[end..];
        Some(part)
    }
}

/// Whether a tag that was opened is this word alone, and the bytes up to its end.
fn basic(opened: &str, word: &str) -> Option<usize> {
    let space = |c: char| c.is_ascii_whitespace();
    let signed = opened.strip_prefix(['-', '+']).unwrap_or(opened);
    let after = signed.trim_start_matches(space).strip_prefix(word)?.trim_start_matches(space);
    let closed = after.strip_prefix(['-', '+']).unwrap_or(after).strip_prefix("%}")?;
    Some(opened.len() - closed.len())
}

/// Where the raw block ends whose content begins at `at`.
fn end_of_raw(source: &str, mut at: usize) -> usize {
    while let Some(open) = source[at..].find("{%") {
        at += open + 2;
        if let Some(end) = basic(&source[at..], "endraw") {
            return at + end;
        }
    }
    source.len()
}

/// The counted bytes of a tag that has begun, and where it ends.
fn measure(tag: &[u8], close: &[u8; 2]) -> (usize, usize) {
    let (mut counted, mut depth, mut at) = (0, 0_usize, 0);
    while at < tag.len() {
        let byte = tag[at];
        match byte {
            b'"' | b'\'' => {
                at = end_of_string(tag, at + 1, byte);
                continue;
            }
            _ if depth == 0 && tag[at..].starts_with(close) => return (counted, at + 2),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        counted += 1;
        at += 1;
    }
    (counted, at)
}

/// Where a string ends that begins at `at`, after its quote.
fn end_of_string(tag: &[u8], mut at: usize, quote: u8) -> usize {
    while at < tag.len() && tag[at] != quote {
        at += if tag[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_tag_is_measured_without_its_strings() {
        for (source, expected) in [
            ("", 0),
            ("text { {", 0),
            ("{{ a }}{% if b %}", 6),
            ("{{ 'a long string }}' }}", 2),
            (r#"{{ "a \" }}" + 1 }}"#, 6),
            ("{# {{ a comment }} #}{{x}}", 1),
            ("{{ {'a': {}} + 1 + 1 }}", 16),
            ("{{ unended", 8),
            ("{{ 'unended", 1),
            ("{{ '\\", 1),
            ("{% raw %}{{ '{% endraw %}{{ 1 + 1 + 1 + 1 }}{# ' #}", 15),
            ("{%- raw -%}{{ '{%- endraw +%}{{ 12 }}", 4),
            ("{% raw %}{{ a longer one }}{% endraw", 0),
            ("{% rawer %}{{ 1 }}", 7),
        ] {
            assert_eq!(longest(source), expected, "{source}");
        }
    }

    #[test]
    fn tags_become_blocks_and_the_rest_stays() {
        for (source, expected) in [
            ("{% generation %}a{% endgeneration %}", "{% if true %}a{% endif %}"),
            ("{%- generation -%}a{%+ endgeneration -%}", "{%- if true -%}a{%+ endif -%}"),
            (
                "{% if add_generation_prompt %}generation{% endif %}",
                "{% if add_generation_prompt %}generation{% endif %}",
            ),
            ("{{ '%}' }} é {% set x = 'generation' %}", "{{ '%}' }} é {% set x = 'generation' %}"),
            ("{% generation", "{% generation"),
            ("{# {% generation %} #}{% generation %}", "{# {% generation %} #}{% if true %}"),
            (
                "{% raw %}{% generation %}{% endraw %}é{% generation %}",
                "{% raw %}{% generation %}{% endraw %}é{% if true %}",
            ),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("", ""),
        ] {
            assert_eq!(without_generation(source), expected);
        }
    }
}
