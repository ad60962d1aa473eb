//! Whether the daemon can announce itself on the local network.

use std::fs;

use super::{Finding, Patient, Verdict, ports};

const CHECK: &str = "mdns";

/// Flags of an interface, as the kernel prints them.
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const MULTICAST: u32 = 0x1000;

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = patient.settings;
    if !settings.announce {
        return vec![Finding::ok(CHECK, "discovery.announce is off: nothing is announced")];
    }
    if !settings.listen.iter().any(ports::reachable) {
        return vec![Finding::ok(CHECK, "only this machine can reach the daemon: nothing is announced")];
    }
    let folder = patient.root.join("sys/class/net");
    let interfaces = fs::read_dir(folder).into_iter().flatten().flatten();
    let able = |path: &std::path::Path| {
        let text = fs::read_to_string(path.join("flags")).ok()?;
        let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
        Some(flags & UP != 0 && flags & MULTICAST != 0 && flags & LOOPBACK == 0)
    };
    let names: Vec<String> = interfaces
        .filter(|interface| able(&interface.path()) == Some(true))
        .map(|interface| interface.file_name().to_string_lossy().into_owned())
        .collect();
    vec![match names.is_empty() {
        true => Finding::new(
            CHECK,
            Verdict::Warning,
            "no network interface is up that takes multicast",
            "`agent-cli devices discover` will not find this device: bring the network up, and look at `ip -brief link`",
        ),
        false => Finding::ok(CHECK, format!("can be announced on {}", names.join(", "))),
    }]
}
