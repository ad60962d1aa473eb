//! The socket unit as systemd has it, for those who look at the service from outside: only the service itself is handed its sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sockets::ALLOWED;
use crate::config::{Address, Held};

const UNIT: &str = "recurved.socket";

/// Where systemd listens for the service, or will at the next start of the machine; nothing without systemd, without the unit, or
/// while it is off. Asks `systemctl`. Blocks.
///
/// # Errors
/// It listens where the daemon cannot serve.
pub fn held() -> Result<Vec<Held>, String> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(Vec::new());
    }
    let question = ["show", UNIT, "--property=ActiveState,UnitFileState,BindIPv6Only,Listen"];
    let answer = Command::new("systemctl").args(question).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let Ok(answer) = answer else { return Ok(Vec::new()) };
    let only_v6 = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
    read(&String::from_utf8_lossy(&answer.stdout), only_v6)
}

/// Reads what `systemctl show` printed. `only_v6`: what `BindIPv6Only=default` is here.
fn read(shown: &str, only_v6: bool) -> Result<Vec<Held>, String> {
    let values = |name: &'static str| {
        shown
            .lines()
            .filter_map(move |line| line.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    };
    let is = |name, wanted: &str| values(name).any(|value| value.starts_with(wanted));
    if !is("ActiveState", "active") && !is("UnitFileState", "enabled") {
        return Ok(Vec::new());
    }
    let only_v6 = is("BindIPv6Only", "ipv6-only") || only_v6 && is("BindIPv6Only", "default");
    let one = |listens: &str| {
        let stream = listens.strip_suffix(" (Stream)");
        let address = stream.and_then(|text| match text.starts_with('/') {
            true => Some(Address::Unix(PathBuf::from(text))),
            false => text.parse().ok().map(Address::Tcp),
        });
        let refused = || format!("{UNIT} listens on {listens}, which cannot be served; {ALLOWED}");
        Ok(Held { address: address.ok_or_else(refused)?, only_v6 })
    };
    values("Listen").map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "ActiveState=inactive\nUnitFileState=enabled\nBindIPv6Only=default\nListen=[::]:50051 (Stream)\nListen=/run/a.sock (Stream)\n";

    #[test]
    fn its_addresses_are_those_that_systemd_shows() {
        let addresses = |held: Vec<Held>| held.iter().map(ToString::to_string).collect::<Vec<_>>();
        let held = read(SHOWN, false).unwrap();
        assert!(held.iter().all(|held| !held.only_v6));
        assert_eq!(addresses(held), ["[::]:50051", "unix:/run/a.sock"]);
        assert!(read(SHOWN, true).unwrap()[0].only_v6);
        assert!(read(&SHOWN.replace("default", "ipv6-only"), false).unwrap()[0].only_v6);
        assert!(!read(&SHOWN.replace("default", "both"), true).unwrap()[0].only_v6);
    }

    #[test]
    fn one_that_is_off_holds_nothing() {
        let off = SHOWN.replace("enabled", "disabled");
        assert_eq!(read(&off, false), Ok(Vec::new()));
        assert_eq!(read(&off.replace("inactive", "active"), false).unwrap().len(), 2);
        // A unit that there is not.
        assert_eq!(read("ActiveState=inactive\nUnitFileState=\n", false), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for listens in ["@name (Stream)", "/run/fifo (FIFO)", "127.0.0.1:7 (Datagram)", "vsock::7 (Stream)"] {
            let refused = read(&format!("{SHOWN}Listen={listens}\n"), false).unwrap_err();
            assert!(refused.contains(listens) && refused.contains("ListenStream=IP:PORT"), "{refused}");
        }
    }
}
