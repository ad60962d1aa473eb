//! How findings are printed.

use std::fmt::Write as _;

use serde_json::json;

use super::{Finding, Verdict, ill};

/// For people: a line for each, and under it what to do.
pub(super) fn text(findings: &[Finding]) -> String {
    let wide = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, advice } in findings {
        let sign = match verdict {
            Verdict::Ok => "+",
            Verdict::Skipped => "-",
            Verdict::Note => "i",
            Verdict::Warning => "!",
            Verdict::Problem => "x",
        };
        let found = found.replace('\n', " ");
        let _ = writeln!(text, "{sign} {check:wide$}  {found}");
        if !advice.is_empty() {
            let _ = writeln!(text, "  {:wide$}  -> {advice}", "");
        }
    }
    text
}

/// For programs.
pub(super) fn json(findings: &[Finding]) -> String {
    let object = json!({ "ok": !ill(findings), "version": env!("CARGO_PKG_VERSION"), "findings": findings });
    object.to_string()
}
