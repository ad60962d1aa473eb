//! This machine: the daemon's program looks at it, and it is tried whether a daemon answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Finding, Verdict};
use crate::args::On;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::target::{self, Address, Target};

const CHECK: &str = "daemon";
/// One on the same machine answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `recurved doctor --format json` prints.
#[derive(Debug, Deserialize)]
struct Report {
    findings: Vec<Finding>,
}

/// Looks at this machine.
pub(super) async fn examine(on: &On) -> Result<Vec<Finding>, Failure> {
    let (daemon, examined) = recurved(&["doctor", "--format", "json"])?;
    let report: Report = serde_json::from_slice(&examined.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&examined.stderr);
        let said = said.lines().next().unwrap_or("nothing").to_owned();
        Failure::Failed(format!(
            "`{} doctor` gave no report ({}; it said: {said}): it may be older than this agent-cli; install the same version of both",
            daemon.display(),
            examined.status
        ))
    })?;
    let mut findings = report.findings;
    let values = recurved(&["check-config", "--format", "json"]).map(|(_, output)| output.stdout).unwrap_or_default();
    for address in addresses(&serde_json::from_slice(&values).unwrap_or_default(), on)? {
        findings.push(answers(address).await);
    }
    Ok(findings)
}

/// Runs the daemon's program that lies beside this one, or else the one that the shell would find.
fn recurved(arguments: &[&str]) -> Result<(PathBuf, Output), Failure> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("recurved")).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from("recurved"));
    match Command::new(&program).args(arguments).output() {
        Ok(output) => Ok((program, output)),
        Err(error) => Err(Failure::Failed(format!(
            "{}: cannot be run: {error}. Install the package recurved here, or name a daemon with --on",
            program.display()
        ))),
    }
}

/// Where a daemon with this configuration listens, as far as it can be asked without certificates; by default the usual place.
fn addresses(config: &Value, on: &On) -> Result<Vec<Address>, Failure> {
    let value = |key: &str| {
        let values = config["values"].as_array().into_iter().flatten();
        values.into_iter().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone()).unwrap_or_default()
    };
    let encrypted = !value("tls.certificate").is_null();
    let listen = value("listen");
    let texts = listen.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut found: Vec<Target> =
        texts.filter_map(|text| target::resolve(Some(text), Path::new(target::LOCAL_SOCKET)).ok()).collect();
    found.retain(|target| !encrypted || matches!(target, Target::Unix(_)));
    let usual = on.address()?;
    if found.is_empty() || matches!(usual.target, Target::Unix(_)) && !found.contains(&usual.target) {
        found.push(usual.target);
    }
    Ok(found.into_iter().map(|target| Address { target, certificates: None }).collect())
}

/// Whether a daemon answers there.
async fn answers(address: Address) -> Finding {
    let described = async { Node::at(&address, PATIENCE).await?.describe().await };
    let target = &address.target;
    match described.await {
        Ok(node) if node.version != env!("CARGO_PKG_VERSION") => Finding::new(
            CHECK,
            Verdict::Note,
            format!(
                "recurved {} answers at {target}, and this is agent-cli {}",
                node.version,
                env!("CARGO_PKG_VERSION")
            ),
            "after an update start the daemon again: `sudo systemctl restart recurved`",
        ),
        Ok(node) => {
            let model = if node.model.is_empty() { "no model yet" } else { node.model.as_str() };
            let found = format!("recurved {} answers at {target}: {model}", node.version);
            Finding::new(CHECK, Verdict::Ok, found, "")
        }
        Err(trouble) if trouble.lost => Finding::new(
            CHECK,
            Verdict::Warning,
            format!("no daemon answers at {target}: {}", trouble.words),
            "start it: `sudo systemctl start recurved`; `systemctl status recurved` and `journalctl -u recurved` say why it ended",
        ),
        Err(trouble) => Finding::new(
            CHECK,
            Verdict::Note,
            format!("the daemon at {target} refuses: {}", trouble.words),
            "the group recurve may ask it over its Unix socket: `sudo usermod -aG recurve $USER`, then log in again",
        ),
    }
}
