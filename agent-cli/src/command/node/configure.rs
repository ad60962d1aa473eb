//! `agent-cli node configure`.

use std::collections::BTreeMap;

use recurve_proto::v1::ChangedSetting;
use serde::Serialize;

use super::Asked;
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::target::Address;

/// Changes the settings of each device.
pub(super) async fn run(asked: Asked, settings: BTreeMap<String, String>) -> Result<(), Failure> {
    let (format, many) = (asked.format, asked.many);
    let ask = |address: Address| {
        let settings = settings.clone();
        async move { Node::at(&address, PATIENCE).await?.configure(settings).await }
    };
    asked
        .each(ask, |name, changed| match format {
            Format::Json => output::json(&Changed::of(name, &changed)),
            Format::Text => output::line(&text(many.then_some(name), &changed)),
        })
        .await
}

fn text(name: Option<&str>, changed: &[ChangedSetting]) -> String {
    let before = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let changed: Vec<&ChangedSetting> = changed.iter().filter(|it| it.before != it.after).collect();
    if changed.is_empty() {
        return format!("{before}nothing changed: it has these settings already");
    }
    let line = |it: &&ChangedSetting| format!("{before}{}: {} → {}", it.key, it.before, it.after);
    let lines: Vec<String> = changed.iter().map(line).collect();
    format!(
        "{}\n{before}this holds until recurved is started again or reads its configuration again; its configuration file keeps it",
        lines.join("\n")
    )
}

/// What changed, for programs.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    device: &'a str,
    changed: Vec<One<'a>>,
}

#[derive(Debug, Serialize)]
struct One<'a> {
    key: &'a str,
    before: &'a str,
    after: &'a str,
}

impl<'a> Changed<'a> {
    fn of(device: &'a str, changed: &'a [ChangedSetting]) -> Self {
        let one = |it: &'a ChangedSetting| One { key: &it.key, before: &it.before, after: &it.after };
        Self { device, changed: changed.iter().map(one).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_and_for_how_long() {
        let changed =
            ChangedSetting { key: "log.level".to_owned(), before: "info".to_owned(), after: "debug".to_owned() };
        assert_eq!(
            text(None, std::slice::from_ref(&changed)),
            "log.level: info → debug\nthis holds until recurved is started again or reads its configuration again; its configuration file keeps it"
        );
        assert!(text(Some("gw-1"), &[changed]).starts_with("gw-1: log.level: info → debug\ngw-1: this holds"));
        assert_eq!(text(Some("gw-1"), &[]), "gw-1: nothing changed: it has these settings already");
    }
}
