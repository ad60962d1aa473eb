//! The socket unit as systemd has it, for those who look at the service from outside: only the service itself is handed its sockets.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sockets::ALLOWED;
use crate::config::{Address, Held};

const UNIT: &str = "recurved.socket";

/// Where systemd listens for the service, or will when the socket is started: the service requires it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SocketUnit {
    /// What the service is handed.
    pub held: Vec<Held>,
    /// What of it the daemon cannot serve, and what is allowed.
    pub refused: Vec<String>,
    /// What is wrong with the unit itself.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a socket unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// systemd does not answer, for this reason.
    Untold(String),
    /// It was changed after systemd read it.
    Stale,
    /// It must not be started.
    Masked,
    /// systemd cannot use it; its state in systemd's word.
    Wrong(String),
}

impl Trouble {
    /// What was found.
    pub fn found(&self) -> String {
        match self {
            Self::Untold(reason) => format!("the addresses of {UNIT} are not known: {reason}"),
            Self::Stale => format!("{UNIT} was changed after systemd read it: what is looked at here is the old one"),
            Self::Masked => format!("{UNIT} is masked, and the service requires it: it does not start"),
            Self::Wrong(state) => {
                format!("systemd cannot use {UNIT} ({state}), and the service requires it: it does not start")
            }
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Untold(_) => "`systemctl status recurved.socket` shows where it listens",
            Self::Stale => "`sudo systemctl daemon-reload`",
            Self::Masked => "`sudo systemctl unmask recurved.socket`",
            Self::Wrong(_) => "`systemd-analyze verify recurved.socket` says what is wrong with it",
        }
    }
}

/// Asks systemd (`systemctl`); nothing is held without systemd, or without the unit. Blocks.
pub fn ask() -> SocketUnit {
    if !Path::new("/run/systemd/system").exists() {
        return SocketUnit::default();
    }
    let only_v6 = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
    match show() {
        Ok(shown) => read(&shown, only_v6),
        Err(reason) => SocketUnit { trouble: Some(Trouble::Untold(reason)), ..SocketUnit::default() },
    }
}

/// # Errors
/// systemd does not answer.
fn show() -> Result<String, String> {
    let question = ["show", UNIT, "--property=LoadState,NeedDaemonReload,BindIPv6Only,Listen"];
    let asked = Command::new("systemctl").args(question).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let answer = asked.map_err(|error| format!("systemctl cannot be run: {error}"))?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.stderr);
        return Err(format!("systemctl show {UNIT} failed: {}", said.lines().next().unwrap_or("it says nothing")));
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// Reads what `systemctl show` printed. `only_v6`: what `BindIPv6Only=default` is here.
fn read(shown: &str, only_v6: bool) -> SocketUnit {
    let pairs = || shown.lines().filter_map(|line| line.split_once('='));
    let is = |name, value| pairs().any(|pair| pair == (name, value));
    let state = pairs().find(|(name, _)| *name == "LoadState").map_or("not-found", |(_, state)| state);
    let trouble = match state {
        "loaded" => is("NeedDaemonReload", "yes").then_some(Trouble::Stale),
        "not-found" => None,
        "masked" => Some(Trouble::Masked),
        state => Some(Trouble::Wrong(state.to_owned())),
    };
    let mut unit = SocketUnit { trouble, ..SocketUnit::default() };
    if state != "loaded" {
        return unit;
    }
    let only_v6 = is("BindIPv6Only", "ipv6-only") || only_v6 && is("BindIPv6Only", "default");
    for (_, listens) in pairs().filter(|(name, _)| *name == "Listen") {
        match listens.strip_suffix(" (Stream)").and_then(address) {
            Some(address) => unit.held.push(Held::new(address, only_v6)),
            None => unit.refused.push(format!("{UNIT} listens on {listens}, which cannot be served; {ALLOWED}")),
        }
    }
    unit
}

/// An address as systemd prints it: `IP:PORT`, with the interface of a link-local one behind it (`%2`), or a path.
fn address(text: &str) -> Option<Address> {
    if text.starts_with('/') {
        return Some(Address::Unix(PathBuf::from(text)));
    }
    let Some((address, interface)) = text.rsplit_once('%') else { return text.parse().ok().map(Address::Tcp) };
    let SocketAddr::V6(mut address) = address.parse().ok()? else { return None };
    let index = || fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?.trim().parse().ok();
    address.set_scope_id(interface.parse().ok().or_else(index)?);
    Some(Address::Tcp(SocketAddr::V6(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str =
        "LoadState=loaded\nBindIPv6Only=default\nListen=[::]:50051 (Stream)\nListen=/run/a.sock (Stream)\n";

    #[test]
    fn its_addresses_are_those_that_systemd_shows() {
        let unit = read(SHOWN, false);
        let held = ["[::]:50051", "unix:/run/a.sock"].map(|text| Held::new(text.parse().unwrap(), false));
        assert_eq!(unit, SocketUnit { held: held.into(), ..SocketUnit::default() });
        for (set, by_default, only_v6) in [("default", true, true), ("ipv6-only", false, true), ("both", true, false)] {
            let held = read(&SHOWN.replace("default", set), by_default).held;
            assert_eq!((held[0].only_v6, held[1].only_v6), (only_v6, false), "{set}");
        }
    }

    #[test]
    fn one_that_is_not_there_holds_nothing_and_one_that_cannot_be_started_is_a_problem() {
        let with = |state: &str| read(&SHOWN.replace("loaded", state), false);
        assert_eq!(with("not-found"), SocketUnit::default());
        for (state, trouble) in [("masked", Trouble::Masked), ("bad-setting", Trouble::Wrong("bad-setting".to_owned()))]
        {
            assert_eq!(with(state), SocketUnit { trouble: Some(trouble), ..SocketUnit::default() });
        }
    }

    #[test]
    fn one_that_was_changed_since_is_told() {
        let unit = read(&format!("NeedDaemonReload=yes\n{SHOWN}"), false);
        assert_eq!((unit.held.len(), unit.trouble), (2, Some(Trouble::Stale)));
    }

    #[test]
    fn a_link_local_address_has_its_interface() {
        let held = read("LoadState=loaded\nListen=[fe80::1]:50051%2 (Stream)\n", false).held;
        assert_eq!(held[0].address, "[fe80::1%2]:50051".parse().unwrap());
        assert_eq!(address("[fe80::1]:7%lo"), Some("[fe80::1%1]:7".parse().unwrap()));
        assert_eq!(address("[fe80::1]:7%no-such-interface"), None);
    }

    #[test]
    fn what_cannot_be_served_is_named_beside_the_rest() {
        let others = ["@name (Stream)", "/run/fifo (FIFO)", "127.0.0.1:7 (Datagram)", "vsock::7 (Stream)"];
        let unit =
            read(&others.iter().map(|other| format!("Listen={other}\n")).fold(SHOWN.to_owned(), |a, b| a + &b), false);
        assert_eq!((unit.held.len(), unit.refused.len()), (2, 4));
        for (refused, other) in unit.refused.iter().zip(others) {
            assert!(refused.contains(other) && refused.contains("ListenStream=IP:PORT"), "{refused}");
        }
    }
}
