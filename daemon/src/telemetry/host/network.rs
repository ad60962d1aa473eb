//! Network interfaces: `/proc/net/dev`.

use std::collections::BTreeMap;

use procfs::FromRead as _;
use procfs::net::InterfaceDeviceStatus;

use super::files::Root;
use super::readings::Interface;

/// The counters of interfaces that were seen, those that are gone now included: they may come back.
#[derive(Debug, Default)]
pub(super) struct Network {
    seen: BTreeMap<String, [Counter; 2]>,
    /// What went through before the first reading is not counted.
    begun: bool,
}

impl Network {
    /// The interfaces that are there now, but the loopback one.
    pub(super) fn read(&mut self, root: &Root) -> Vec<Interface> {
        let text = root.text("proc/net/dev");
        let Some(status) = text.and_then(|text| InterfaceDeviceStatus::from_read(text.as_bytes()).ok()) else {
            return Vec::new();
        };
        let first = !std::mem::replace(&mut self.begun, true);
        let mut interfaces: Vec<Interface> = status
            .0
            .into_values()
            .filter(|device| device.name != "lo")
            .map(|device| {
                let [received, sent] = self.seen.entry(device.name.clone()).or_default();
                if first {
                    (received.last, sent.last) = (device.recv_bytes, device.sent_bytes);
                }
                let (received, sent) = (received.step(device.recv_bytes), sent.step(device.sent_bytes));
                Interface { name: device.name, received, sent }
            })
            .collect();
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        interfaces
    }
}

/// A sum that only grows, of a counter that may start again.
#[derive(Debug, Default)]
struct Counter {
    sum: u64,
    last: u64,
}

impl Counter {
    /// The sum, now that the counter stands at `now`. One that is lower than it was began again from zero: a narrow one
    /// wrapped, or the interface was made anew.
    fn step(&mut self, now: u64) -> u64 {
        let grown = now.checked_sub(self.last).unwrap_or(now);
        self.sum = self.sum.saturating_add(grown);
        self.last = now;
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_through_before_the_first_reading_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        let write = |received: u64, more: &str| {
            let text = format!(
                "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo \
                 frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n  eth0: {received} 1 0 0 0 0 0 \
                 0 70 1 0 0 0 0 0 0\n{more}"
            );
            std::fs::write(dir.path().join("proc/net/dev"), text).unwrap();
        };
        let (root, mut network) = (Root::new(dir.path()), Network::default());
        let mut read = || network.read(&root).iter().map(|i| (i.received, i.sent)).collect::<Vec<_>>();
        write(5_000, "");
        assert_eq!(read(), [(0, 0)]);
        write(5_300, "  usb0: 90 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n");
        assert_eq!(read(), [(300, 0), (90, 10)], "one that came later began then");
    }

    #[test]
    fn a_counter_that_starts_again_goes_on_growing() {
        let mut counter = Counter::default();
        let seen: Vec<u64> = [100, 250, 10, 30, u64::MAX].into_iter().map(|now| counter.step(now)).collect();
        assert_eq!(seen, [100, 250, 260, 280, u64::MAX]);
    }
}
