//! How findings are shown to people: a line for each, what to do under it, as wide as the terminal.

use super::{Finding, Verdict};

/// Of lines that go to no terminal.
const WIDE: usize = 100;
const NARROWEST: usize = 40;

/// All of them.
pub(super) fn page(findings: &[Finding]) -> String {
    let terminal = console::Term::stdout();
    let wide = if terminal.is_term() { usize::from(terminal.size().1) } else { WIDE };
    drawn(findings, wide.max(NARROWEST))
}

fn drawn(findings: &[Finding], wide: usize) -> String {
    let name = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut page = String::new();
    for Finding { check, verdict, found, advice } in findings {
        let indent = " ".repeat(name + 12);
        let first = format!("{} {check:name$}  ", word(*verdict));
        page.push_str(&wrapped(&first, &indent, found, wide));
        if !advice.is_empty() {
            page.push_str(&wrapped(&format!("{indent}> "), &format!("{indent}  "), advice, wide));
        }
    }
    page
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "+ ok     ",
        Verdict::Skipped => "- skipped",
        Verdict::Note => "i note   ",
        Verdict::Warning => "! warning",
        Verdict::Problem => "x PROBLEM",
    }
}

/// The words in lines of this width; the first begins with `first`, the others with `indent`.
fn wrapped(first: &str, indent: &str, text: &str, wide: usize) -> String {
    let mut lines = String::from(first);
    let (mut column, mut begun) = (first.chars().count(), false);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if begun && column + 1 + length > wide {
            lines.push('\n');
            lines.push_str(indent);
            (column, begun) = (indent.chars().count(), false);
        }
        if begun {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        (column, begun) = (column + length, true);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_wide_as_the_terminal_and_advice_stands_below() {
        let findings = [
            Finding::new("cpu", Verdict::Ok, "4 cores".to_owned(), ""),
            Finding::new(
                "memory",
                Verdict::Problem,
                "too little of it for the model".to_owned(),
                "take a smaller model",
            ),
        ];
        let page = drawn(&findings, 40);
        assert_eq!(
            page,
            "+ ok      cpu     4 cores\n\
             x PROBLEM memory  too little of it for\n                  \
             the model\n                  \
             > take a smaller model\n"
        );
        assert!(page.lines().all(|line| line.chars().count() <= 40), "{page}");
    }
}
