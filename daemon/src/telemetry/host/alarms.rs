//! What the hardware complains of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{Root, count, names, number, text};
use super::hwmon;
use super::readings::Alarm;

const THROTTLED: &str = "throttled";
const UNDER_VOLTAGE: &str = "under-voltage";
const FREQUENCY_CAPPED: &str = "frequency-capped";
const SOFT_TEMPERATURE_LIMIT: &str = "soft-temperature-limit";
const OVER_CURRENT: &str = "over-current";

/// The bits of a Raspberry Pi's firmware that tell how it is now. Those 16 places higher tell how it was.
const RASPBERRY: [(u32, &str); 4] =
    [(0, UNDER_VOLTAGE), (1, FREQUENCY_CAPPED), (2, THROTTLED), (3, SOFT_TEMPERATURE_LIMIT)];

/// How one alarm is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    /// A file with 0 or 1.
    Flag(&'static str, PathBuf),
    /// A file with a number that grows with each alarm.
    Count(&'static str, PathBuf),
    /// A Raspberry Pi's word.
    Raspberry(PathBuf),
}

/// The signs that this machine has.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    signs: Vec<Sign>,
    /// Where each count stood.
    counts: BTreeMap<PathBuf, u64>,
}

impl Alarms {
    /// Looks for signs. Counts start here: what happened before is not news.
    pub(super) fn find(root: &Root) -> Self {
        let mut alarms = Self::default();
        alarms.find_again(root);
        alarms
    }

    /// Looks for signs that came; counts of those that stayed go on.
    pub(super) fn find_again(&mut self, root: &Root) {
        let mut signs: Vec<Sign> = raspberry(root).into_iter().map(Sign::Raspberry).collect();
        signs.extend(chips(root));
        signs.extend(coolers(root));
        signs.extend(packages(root));
        for sign in &signs {
            if let Sign::Count(_, path) = sign
                && !self.counts.contains_key(path)
                && let Some(now) = count(path)
            {
                self.counts.insert(path.clone(), now);
            }
        }
        self.signs = signs;
    }

    /// Each alarm once: on where any of its signs says so. One whose signs cannot be read is left out.
    pub(super) fn read(&mut self) -> Vec<Alarm> {
        let mut told: BTreeMap<&'static str, bool> = BTreeMap::new();
        let mut tell = |name, on| *told.entry(name).or_default() |= on;
        for sign in &self.signs {
            match sign {
                Sign::Flag(name, path) => {
                    if let Some(value) = number(path) {
                        tell(*name, value > 0);
                    }
                }
                Sign::Count(name, path) => {
                    if let Some(now) = count(path) {
                        // A count that is lower than it was began again.
                        let before = self.counts.insert(path.clone(), now).unwrap_or(now);
                        tell(*name, now > before || (now < before && now > 0));
                    }
                }
                Sign::Raspberry(path) => {
                    if let Some(word) = text(path).and_then(|text| hexadecimal(&text)) {
                        for (bit, name) in RASPBERRY {
                            tell(name, word >> bit & 1 == 1);
                        }
                    }
                }
            }
        }
        told.into_iter().map(|(name, on)| Alarm { name, on }).collect()
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The file of a Raspberry Pi's firmware: `soc/soc:firmware` up to the fourth, `soc@107c000000/soc@107c000000:firmware` on the
/// fifth. The driver asks the firmware every two seconds; reading the file only repeats its last answer. The first time after
/// a start, the kernel logs that the file is deprecated: it tells of throttling nowhere else.
fn raspberry(root: &Root) -> Option<PathBuf> {
    let platform = root.path("sys/devices/platform");
    let firmware = |folder: &Path| {
        let own = names(folder).into_iter().filter(|name| name.ends_with("firmware"));
        own.map(|name| folder.join(name).join("get_throttled")).find(|path| path.is_file())
    };
    let buses = names(&platform).into_iter().filter(|name| name.starts_with("soc")).map(|name| platform.join(name));
    std::iter::once(platform.clone()).chain(buses).find_map(|folder| firmware(&folder))
}

/// What the firmware of a Raspberry Pi complained of since it was started.
pub fn since_start(root: &Path) -> Vec<&'static str> {
    const PAST: u32 = 16;
    let word = raspberry(&Root::new(root)).and_then(|path| text(&path));
    let word = word.and_then(|text| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()).unwrap_or(0);
    RASPBERRY.iter().filter(|(bit, _)| word >> (bit + PAST) & 1 == 1).map(|(_, name)| *name).collect()
}

/// Alarms of chips whose meaning is known. What others say depends on limits that often nobody has set.
fn chips(root: &Root) -> Vec<Sign> {
    let mut signs = Vec::new();
    for chip in hwmon::chips(root) {
        match chip.name.as_str() {
            "rpi_volt" => signs.extend(chip.alarms("in", "_lcrit_alarm").map(|path| Sign::Flag(UNDER_VOLTAGE, path))),
            "ina3221" => signs.extend(chip.alarms("curr", "_crit_alarm").map(|path| Sign::Flag(OVER_CURRENT, path))),
            // Of a Jetson Orin: the first counts how often the supply was too low, the others how often it gave too much.
            "soctherm_oc" => signs.extend(
                chip.alarms("oc", "_event_cnt")
                    .enumerate()
                    .map(|(at, path)| Sign::Count(if at == 0 { UNDER_VOLTAGE } else { OVER_CURRENT }, path)),
            ),
            _ => {}
        }
    }
    signs
}

/// What the kernel slows down to cool the machine. Fans and the like cool it, too, and are no alarm.
fn coolers(root: &Root) -> Vec<Sign> {
    let slows = |kind: &str| {
        kind == "Processor"
            || kind.ends_with("-throttle-alert")
            || kind.starts_with("cpufreq-")
            || kind.starts_with("thermal-cpufreq-")
    };
    let folders = root.numbered("sys/class/thermal", "cooling_device").into_iter().map(|(_, folder)| folder);
    let slowing = folders.filter(|folder| text(&folder.join("type")).is_some_and(|kind| slows(&kind)));
    slowing.map(|folder| Sign::Flag(THROTTLED, folder.join("cur_state"))).collect()
}

/// How often each processor of Intel's was too hot: one core of a package tells it for all.
fn packages(root: &Root) -> Vec<Sign> {
    let mut seen = BTreeSet::new();
    let cores = root.numbered("sys/devices/system/cpu", "cpu").into_iter().map(|(_, folder)| folder);
    let first = cores.filter(|folder| {
        let count = folder.join("thermal_throttle/package_throttle_count");
        count.is_file() && seen.insert(number(&folder.join("topology/physical_package_id")))
    });
    first.map(|folder| Sign::Count(THROTTLED, folder.join("thermal_throttle/package_throttle_count"))).collect()
}
