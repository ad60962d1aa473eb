//! `agent-cli node audit`.

use recurve_proto::v1::AuditLine;
use serde::Serialize;

use super::Asked;
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;
use crate::view::table;

/// Prints what each device wrote down, after this line.
pub(super) async fn run(asked: Asked, after: u64) -> Result<(), Failure> {
    let (format, many) = (asked.format, asked.many);
    let ask = move |address: Address| async move { lines(&address, after).await };
    asked
        .each(ask, |name, lines| {
            lines.iter().try_for_each(|line| match format {
                Format::Json => output::json(&Line::of(name, line)),
                Format::Text => output::line(&text(many.then_some(name), line)),
            })
        })
        .await
}

async fn lines(address: &Address, after: u64) -> Result<Vec<AuditLine>, Trouble> {
    let mut told = Node::at(address, PATIENCE).await?.audit(after).await?;
    let mut lines = Vec::new();
    while let Some(message) = told.next_within(PATIENCE).await? {
        lines.extend(message.lines);
    }
    Ok(lines)
}

fn text(name: Option<&str>, line: &AuditLine) -> String {
    let name = name.map(|name| format!("{name}  ")).unwrap_or_default();
    let AuditLine { number, at, who, what, bundle, result } = line;
    let bundle = if bundle.is_empty() { String::new() } else { format!(" {}", table::digest(bundle)) };
    format!("{name}{number}  {at}  {who}  {what}{bundle}: {result}")
}

/// A line, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    device: &'a str,
    number: u64,
    at: &'a str,
    who: &'a str,
    what: &'a str,
    bundle: Option<&'a str>,
    result: &'a str,
}

impl<'a> Line<'a> {
    fn of(device: &'a str, line: &'a AuditLine) -> Self {
        let AuditLine { number, at, who, what, bundle, result } = line;
        let bundle = Some(bundle.as_str()).filter(|bundle| !bundle.is_empty());
        Self { device, number: *number, at, who, what, bundle, result }
    }
}
