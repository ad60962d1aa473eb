//! This machine: the daemon's program looks at it, and it is tried whether a daemon answers.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use recurve_bundle::shell;
use recurve_proto::reason;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Finding, Verdict};
use crate::args::On;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::status::Trouble;
use crate::target::{self, Address, Target};

const CHECK: &str = "daemon";
/// One on the same machine answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is there where systemd starts the daemon with the machine, or with the first connection.
const ENABLED: [&str; 2] = [
    "etc/systemd/system/multi-user.target.wants/recurved.service",
    "etc/systemd/system/sockets.target.wants/recurved.socket",
];

const JOIN: &str =
    "the group recurve may ask it over its Unix socket: `sudo usermod -aG recurve $USER`, then log in again";

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
            shell::quote(&daemon),
            examined.status
        ))
    })?;
    let mut findings = report.findings;
    if let Some(state) = asleep() {
        findings.push(stopped(&state));
        return Ok(findings);
    }
    let values = recurved(&["check-config", "--format", "json"]).map(|(_, output)| output.stdout).unwrap_or_default();
    let config = serde_json::from_slice(&values).unwrap_or_default();
    let mut heard = Vec::new();
    for address in addresses(&config, on.address()?.target) {
        // Nothing is heard in plain words where a daemon wants TLS.
        let sure = matches!(address.target, Target::Unix(_)) || !encrypted(&config);
        heard.push((answers(address).await, sure));
    }
    let nowhere = heard.iter().all(|(answer, _)| answer.is_err());
    let needed = nowhere && enabled(Path::new("/"));
    findings.extend(heard.into_iter().map(|(answer, sure)| {
        answer.unwrap_or_else(|silence| {
            let verdict = if needed && sure { Verdict::Problem } else { Verdict::Warning };
            Finding::new(
                CHECK,
                verdict,
                silence,
                "start it: `sudo systemctl start recurved`; `systemctl status recurved` and `journalctl -u recurved` say why it ended",
            )
        })
    }));
    Ok(findings)
}

/// The state of a service that is stopped while systemd holds its sockets: whoever connects to one starts it, and a diagnosis must
/// not. None of one that runs, and where systemd holds nothing for it.
fn asleep() -> Option<String> {
    let question = ["show", "recurved.socket", "recurved.service", "--property=Id,ActiveState"];
    let answer = Command::new("systemctl").args(question).output().ok().filter(|answer| answer.status.success())?;
    asleep_by(&String::from_utf8_lossy(&answer.stdout)).map(str::to_owned)
}

/// The same, by what `systemctl show` printed: a paragraph for each unit.
fn asleep_by(shown: &str) -> Option<&str> {
    let state = |unit: &str| {
        let paragraph = shown
            .split("\n\n")
            .find(|paragraph| paragraph.lines().any(|line| line.strip_prefix("Id=") == Some(unit)))?;
        paragraph.lines().find_map(|line| line.strip_prefix("ActiveState="))
    };
    let service = state("recurved.service").filter(|state| matches!(*state, "inactive" | "failed"))?;
    (state("recurved.socket") == Some("active")).then_some(service)
}

/// What there is to say of such a service.
fn stopped(state: &str) -> Finding {
    let (verdict, advice) = match state {
        "failed" => (Verdict::Problem, "`systemctl status recurved` and `journalctl -u recurved` say why it ended"),
        _ => (Verdict::Warning, "start it: `sudo systemctl start recurved`"),
    };
    Finding::new(CHECK, verdict, format!("recurved.service is stopped ({state}); who connects starts it"), advice)
}

/// Whether systemd is to run the daemon.
fn enabled(root: &Path) -> bool {
    root.join("run/systemd/system").exists() && ENABLED.iter().any(|link| root.join(link).exists())
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

/// What a setting is; null where it is not set.
fn value(config: &Value, key: &str) -> Value {
    let values = config["values"].as_array().into_iter().flatten();
    values.into_iter().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone()).unwrap_or_default()
}

/// Whether the daemon wants TLS over TCP.
fn encrypted(config: &Value) -> bool {
    !value(config, "tls.certificate").is_null()
}

/// Where a daemon with this configuration listens, itself or by systemd's sockets, as far as it can be asked without certificates;
/// by default the `usual` place.
fn addresses(config: &Value, usual: Target) -> Vec<Address> {
    let encrypted = encrypted(config);
    let (listen, sockets) = (value(config, "listen"), &config["sockets"]);
    let texts = [&listen, sockets].into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    let mut found: Vec<Target> = Vec::new();
    for target in texts.filter_map(|text| target::resolve(Some(OsStr::new(text)), Path::new(target::LOCAL_SOCKET)).ok())
    {
        if !found.contains(&target) {
            found.push(target);
        }
    }
    found.retain(|target| !encrypted || matches!(target, Target::Unix(_)));
    if found.is_empty() || matches!(usual, Target::Unix(_)) && !found.contains(&usual) {
        found.push(usual);
    }
    found.into_iter().map(|target| Address { target, certificates: None }).collect()
}

/// What answers there; an error where nothing does.
async fn answers(address: Address) -> Result<Finding, String> {
    let described = async { Node::at(&address, PATIENCE).await?.describe().await };
    let target = &address.target;
    Ok(match described.await {
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
        Err(trouble) if trouble.lost && closed(target).await => {
            Finding::new(CHECK, Verdict::Skipped, format!("{target}: this user may not connect"), JOIN)
        }
        Err(trouble) if trouble.lost => return Err(format!("no daemon answers at {target}: {}", trouble.words)),
        Err(trouble) => refusal(target, &trouble),
    })
}

/// Whether it is a socket that this user may not open.
async fn closed(target: &Target) -> bool {
    let Target::Unix(path) = target else { return false };
    UnixStream::connect(path).await.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// A daemon that answers, and says no.
fn refusal(target: &Target, trouble: &Trouble) -> Finding {
    match target {
        // Over plain TCP only models may be asked, which is how it is meant to be.
        Target::Tcp { .. } if trouble.reason == reason::NOT_ALLOWED => {
            Finding::new(CHECK, Verdict::Ok, format!("a daemon answers at {target}"), "")
        }
        Target::Tcp { .. } => {
            Finding::new(CHECK, Verdict::Note, format!("the daemon at {target} refuses: {}", trouble.words), "")
        }
        Target::Unix(_) => {
            Finding::new(CHECK, Verdict::Note, format!("the daemon at {target} refuses: {}", trouble.words), JOIN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_operator_over_tcp_has_heard_a_daemon() {
        let trouble =
            |reason: &str| Trouble { reason: reason.to_owned(), ..Trouble::from(Failure::Failed("no".to_owned())) };
        let tcp = Target::Tcp { host: "127.0.0.1".to_owned(), port: 50051 };
        let found = refusal(&tcp, &trouble(reason::NOT_ALLOWED));
        assert_eq!(found, Finding::new(CHECK, Verdict::Ok, "a daemon answers at 127.0.0.1:50051".to_owned(), ""));
        assert_eq!(refusal(&tcp, &trouble("")).verdict, Verdict::Note);
        let unix = refusal(&Target::Unix("/run/x.sock".into()), &trouble(reason::NOT_ALLOWED));
        assert!(unix.verdict == Verdict::Note && unix.advice.contains("usermod"), "{unix:?}");
    }

    #[test]
    fn a_service_sleeps_while_its_sockets_are_held() {
        let shown = |socket: &str, service: &str| {
            format!("Id=recurved.socket\nActiveState={socket}\n\nId=recurved.service\nActiveState={service}\n")
        };
        for (socket, service, state) in [
            ("active", "inactive", Some("inactive")),
            ("active", "failed", Some("failed")),
            ("active", "active", None),
            ("active", "activating", None),
            ("inactive", "inactive", None),
        ] {
            assert_eq!(asleep_by(&shown(socket, service)), state, "{socket} {service}");
        }
        assert_eq!((stopped("inactive").verdict, stopped("failed").verdict), (Verdict::Warning, Verdict::Problem));
    }

    #[test]
    fn a_daemon_is_asked_at_its_own_addresses_and_at_systemd_s_once() {
        let config = serde_json::json!({
            "values": [{ "key": "listen", "value": ["127.0.0.1:7", "127.0.0.1:8"] }],
            "sockets": ["127.0.0.1:8", "unix:/run/x.sock"],
        });
        let found = addresses(&config, Target::Unix("/run/x.sock".into()));
        let found: Vec<String> = found.iter().map(|address| address.target.to_string()).collect();
        assert_eq!(found, ["127.0.0.1:7", "127.0.0.1:8", "unix:/run/x.sock"]);
    }

    #[test]
    fn a_service_is_enabled_by_its_unit_or_its_socket() {
        for link in ENABLED {
            let root = tempfile::tempdir().unwrap();
            let link = root.path().join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::fs::write(link, "").unwrap();
            assert!(!enabled(root.path()));
            std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
            assert!(enabled(root.path()));
        }
    }
}
