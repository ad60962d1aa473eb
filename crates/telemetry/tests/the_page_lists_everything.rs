//! The lists of `docs/telemetry.md` are those of the code.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: helpers fail as the tests do"
)]

use std::fmt::Write as _;
use std::path::Path;

use recurve_proto::v1::Severity;
use recurve_telemetry::catalogue::{Kind, METRICS, Metric, SEMCONV, SEMCONV_GENAI};
use recurve_telemetry::event::KINDS;

/// Set, the page is written anew instead.
const UPDATE: &str = "RECURVE_UPDATE_PAGES";

fn code(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What Prometheus calls it: dots become underscores, the unit is spelled out, and sums end in `_total`.
fn at_prometheus(metric: &Metric) -> String {
    let unit = match (metric.unit, metric.kind) {
        ("s", _) => "_seconds",
        ("By", _) => "_bytes",
        ("1", Kind::Gauge) => "_ratio",
        ("Cel", _) => "_celsius",
        ("Hz", _) => "_hertz",
        ("W", _) => "_watts",
        ("V", _) => "_volts",
        _ => "",
    };
    let total = if metric.kind == Kind::Counter { "_total" } else { "" };
    format!("{}{unit}{total}", metric.name.replace('.', "_"))
}

fn metrics() -> String {
    let mut table =
        "| metric, and what Prometheus calls it | unit | instrument | attributes | meaning |\n|---|---|---|---|---|\n"
            .to_owned();
    for metric in METRICS {
        let instrument = match metric.kind {
            Kind::Gauge => "Gauge",
            Kind::UpDownCounter => "UpDownCounter",
            Kind::Counter => "Counter",
            Kind::Histogram(_) => "Histogram",
        };
        let (name, shown, unit) = (metric.name, at_prometheus(metric), metric.unit);
        let attributes = code(metric.attributes);
        writeln!(table, "| `{name}`<br>`{shown}` | `{unit}` | {instrument} | {attributes} | {} |", metric.doc).unwrap();
    }
    table
}

fn buckets() -> String {
    let mut table = "| histogram | upper bounds; the last bucket has none |\n|---|---|\n".to_owned();
    for metric in METRICS.iter().filter(|metric| matches!(metric.kind, Kind::Histogram(_))) {
        let bounds: Vec<String> = metric.bounds().iter().map(f64::to_string).collect();
        writeln!(table, "| `{}` | {} |", metric.name, bounds.join(", ")).unwrap();
    }
    table
}

fn events() -> String {
    let mut table = "| event | severity | meaning |\n|---|---|---|\n".to_owned();
    for kind in KINDS {
        let severity = match kind.severity {
            Severity::Unspecified => "none",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        writeln!(table, "| `{}` | {severity} | {} |", kind.name, kind.doc).unwrap();
    }
    table
}

fn conventions() -> String {
    let semconv = "https://github.com/open-telemetry/semantic-conventions";
    format!(
        "- `rpc.*`, `system.*`, `process.*`, `hw.*`: [semantic conventions {SEMCONV}]({semconv}/tree/{SEMCONV}/docs).\n\
         - `gen_ai.*`: [their part for generative AI]({semconv}-genai), which is in development, as of commit\n  \
         `{SEMCONV_GENAI}`.\n\
         - `recurve.*`: what these do not know.\n"
    )
}

/// The page with this between its markers.
fn with(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("docs/telemetry.md has no line {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/telemetry.md has no line {end}"));
    format!("{before}{begin}{text}{end}{after}")
}

#[test]
fn the_lists_of_the_page_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/telemetry.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let lists = [("conventions", conventions()), ("metrics", metrics()), ("buckets", buckets()), ("events", events())];
    let right = lists.iter().fold(page.clone(), |page, (name, text)| with(&page, name, text));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, right).unwrap();
        return;
    }
    let wrong = right.lines().zip(page.lines()).find(|(right, found)| right != found);
    assert!(
        right == page,
        "docs/telemetry.md is out of date: {UPDATE}=1 cargo test --release -p recurve-telemetry --test the_page_lists_everything\n\
         the first line that is another: {wrong:?}"
    );
}
