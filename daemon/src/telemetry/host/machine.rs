//! What a machine is: read once, for its uptime.

mod processor;

use std::path::Path;
use std::time::Duration;

use super::files::Root;
use super::memory;

/// A machine. What the system does not say is empty or zero.
#[derive(Debug, Clone)]
pub struct Machine {
    root: Root,
    /// Its name on the network.
    pub hostname: String,
    /// The board or the computer, such as `Raspberry Pi 5 Model B Rev 1.0`.
    pub board: String,
    /// Its processor, such as `Cortex-A76`.
    pub cpu: String,
    /// Logical cores that are on.
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
    /// Such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// The kernel's release, such as `6.6.31`.
    pub kernel: String,
    /// Such as `aarch64`.
    pub architecture: &'static str,
    /// Made by the kernel anew at each start.
    pub boot_id: String,
}

impl Machine {
    /// The machine whose files lie under `root`.
    pub fn read(root: &Path) -> Self {
        let root = Root::new(root);
        let text = |below: &str| root.text(below).unwrap_or_default();
        let cpuinfo = text("proc/cpuinfo");
        Self {
            hostname: text("proc/sys/kernel/hostname"),
            board: board(&root),
            cpu: processor::name(&cpuinfo).unwrap_or_default(),
            cores: root
                .text("sys/devices/system/cpu/online")
                .and_then(|text| listed(&text))
                .unwrap_or_else(|| processor::cores(&cpuinfo)),
            memory: memory::read(&root).map_or(0, |memory| memory.total),
            os: os(&root),
            kernel: text("proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH,
            boot_id: text("proc/sys/kernel/random/boot_id"),
            root,
        }
    }

    /// How long ago it started.
    pub fn uptime(&self) -> Option<Duration> {
        let text = self.root.text("proc/uptime")?;
        Duration::try_from_secs_f64(text.split_ascii_whitespace().next()?.parse().ok()?).ok()
    }
}

/// What the device tree or the firmware of a PC says.
fn board(root: &Root) -> String {
    if let Some(model) = root.text("proc/device-tree/model").or_else(|| root.text("sys/firmware/devicetree/base/model"))
    {
        return model;
    }
    let said = |field: &str| root.text(&format!("sys/class/dmi/id/{field}")).filter(|text| !is_filler(text));
    match (said("sys_vendor"), said("product_name")) {
        (Some(vendor), Some(product)) if product.starts_with(&vendor) => product,
        (Some(vendor), Some(product)) => format!("{vendor} {product}"),
        (vendor, product) => product.or(vendor).unwrap_or_default(),
    }
}

/// What vendors leave in who did not set it.
fn is_filler(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("o.e.m.")
        || ["system manufacturer", "system product name", "default string", "not specified", "unknown", "none"]
            .contains(&text.as_str())
}

/// `PRETTY_NAME` of `os-release`.
fn os(root: &Root) -> String {
    let text = root.text("etc/os-release").or_else(|| root.text("usr/lib/os-release")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
}

/// How many `0-3,6` are.
fn listed(text: &str) -> Option<u32> {
    let mut sum = 0u32;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        for (text, cores) in [
            ("0-3", Some(4)),
            ("0", Some(1)),
            ("0-1,4-5,7", Some(5)),
            ("", None),
            ("3-0", None),
            ("0-4294967295", None),
            ("a", None),
        ] {
            assert_eq!(listed(text), cores, "{text}");
        }
    }

    #[test]
    fn what_vendors_leave_in_is_no_name() {
        assert!(is_filler("To Be Filled By O.E.M.") && is_filler("System Product Name"));
        assert!(!is_filler("PowerEdge R650"));
    }
}
