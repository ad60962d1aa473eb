//! `agent-cli doctor`: what is wrong with a machine that serves or should, and what to do about it.

mod local;
mod show;

use std::collections::BTreeMap;

use recurve_proto::v1;
use serde::{Deserialize, Serialize};

use crate::args::On;
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::fleet::select::Selector;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;

use super::logs::partly;

/// Arguments of `agent-cli doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli doctor
  sudo -u recurve agent-cli doctor
  agent-cli doctor --on gw-1
  agent-cli doctor --to all --format json

Without --on and --to it looks at this machine, also where no daemon runs: `recurved doctor` does the work. With one of them the
daemons look at themselves, within their own limits. Ends with 0 where no check found a problem; warnings are none.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// How to print; json gives one object on a line for each device
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Skipped,
    Note,
    Warning,
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    found: String,
    advice: String,
}

impl Finding {
    fn new(check: &str, verdict: Verdict, found: String, advice: &str) -> Self {
        Self { check: check.to_owned(), verdict, found, advice: advice.to_owned() }
    }
}

impl From<v1::Finding> for Finding {
    fn from(finding: v1::Finding) -> Self {
        let verdict = match finding.verdict() {
            v1::Verdict::Ok => Verdict::Ok,
            // One that this version does not know is told without being judged.
            v1::Verdict::Skipped => Verdict::Skipped,
            v1::Verdict::Note | v1::Verdict::Unspecified => Verdict::Note,
            v1::Verdict::Warning => Verdict::Warning,
            v1::Verdict::Problem => Verdict::Problem,
        };
        Self { check: finding.check, verdict, found: finding.found, advice: finding.advice }
    }
}

/// A device, for programs.
#[derive(Debug, Serialize)]
struct Examined<'a> {
    device: &'a str,
    ok: bool,
    findings: &'a [Finding],
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.on.names(&args.to)?.is_none() {
        let findings = local::examine(&args.on).await?;
        print("this machine", &findings, args.format, false)?;
        return match problems(&findings) {
            0 => Ok(()),
            count => Err(Failure::Failed(told(count))),
        };
    }
    let many = !args.to.is_empty();
    let devices = args.on.named(&args.to)?;
    let count = devices.len();
    let ask = |address: Address| async move { Node::at(&address, PATIENCE).await?.check().await };
    let (mut failures, mut ill) = (Vec::new(), BTreeMap::new());
    for (name, answer) in ask_all(devices, ask).await {
        let answer: Result<Vec<v1::Finding>, Trouble> = answer;
        match answer {
            Ok(findings) => {
                let findings: Vec<Finding> = findings.into_iter().map(Finding::from).collect();
                print(&name, &findings, args.format, many)?;
                if problems(&findings) > 0 {
                    ill.insert(name, problems(&findings));
                }
            }
            Err(trouble) => failures.push((name, trouble)),
        }
    }
    partly(failures, count, many)?;
    match ill.values().next() {
        None => Ok(()),
        Some(count) if !many => Err(Failure::Failed(told(*count))),
        Some(_) => {
            let names: Vec<String> = ill.into_keys().collect();
            Err(Failure::Partly(format!("{} of {count} devices have problems: {}", names.len(), names.join(", "))))
        }
    }
}

fn problems(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count()
}

fn told(problems: usize) -> String {
    match problems {
        1 => "1 problem was found; what to do is said under it".to_owned(),
        count => format!("{count} problems were found; what to do is said under each"),
    }
}

fn print(device: &str, findings: &[Finding], format: Format, many: bool) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&Examined { device, ok: problems(findings) == 0, findings }),
        Format::Text if many => output::line(&format!("{device}\n{}", show::page(findings))),
        Format::Text => output::raw(output::printable(&show::page(findings)).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_is_not_known_is_no_problem() {
        let wire = |verdict| v1::Finding { verdict, ..v1::Finding::default() };
        assert_eq!(Finding::from(wire(5)).verdict, Verdict::Problem);
        assert_eq!(Finding::from(wire(1)).verdict, Verdict::Ok);
        assert_eq!(Finding::from(wire(99)).verdict, Verdict::Note);
    }
}
