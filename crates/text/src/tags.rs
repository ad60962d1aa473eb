//! The tags of a chat template, before it is parsed.

/// Bytes of the longest tag (`{{ … }}` or `{% … %}`), the strings in it not counted. A tag that does not end counts up to
/// the end of the template.
pub(crate) fn longest(source: &str) -> usize {
    let mut longest = 0;
    let mut rest = source.as_bytes();
    while let Some(at) = rest.windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#")) {
        let kind = rest[at + 1];
        rest = &rest[at + 2..];
        if kind == b'#' {
            let end = rest.windows(2).position(|pair| pair == b"#}").map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
        } else {
            let (counted, end) = measure(rest, if kind == b'{' { b"}}" } else { b"%}" });
            longest = longest.max(counted);
            rest = &rest[end..];
        }
    }
    longest
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

/// A template without the tags `{% generation %}` and `{% endgeneration %}`, by which Hugging Face's templates mark what the
/// model wrote. Rendering takes no notice of them, but other template engines do not know them: each becomes a block that is
/// always rendered. Marks for white space stay.
pub(crate) fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[2..end];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replaced = match word {
            "generation" => inner.replacen("generation", "if true", 1),
            "endgeneration" => inner.replacen("endgeneration", "endif", 1),
            _ => inner.to_owned(),
        };
        out.extend([before, "{%", &replaced, "%}"]);
        rest = &tag[end + 2..];
    }
    out + rest
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
            ("", ""),
        ] {
            assert_eq!(without_generation(source), expected);
        }
    }
}
