//! The machine's sensors: where they were found, and what they read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{Root, number, text};
use super::readings::{Measured, Sensor};
use super::{hwmon, thermal};

/// Every sensor, by what it measures.
#[derive(Debug, Default)]
pub(super) struct Sensors {
    pub(super) temperatures: Vec<Probe>,
    pub(super) cpu_speeds: Vec<Probe>,
    pub(super) power: Vec<Probe>,
    pub(super) voltages: Vec<Probe>,
}

impl Sensors {
    /// Looks for them.
    pub(super) fn find(root: &Root) -> Self {
        let mut sensors = Self { cpu_speeds: clocks(root), ..Self::default() };
        let zones = thermal::zones(root);
        let mirrored: BTreeSet<String> = zones.iter().map(|zone| zone.kind.replace('-', "_")).collect();
        sensors.temperatures = zones.into_iter().map(|zone| zone.probe).collect();
        for chip in hwmon::chips(root) {
            // The kernel offers most thermal zones a second time as such a chip.
            if !chip.is_zone && !mirrored.contains(&chip.name) {
                sensors.temperatures.extend(chip.temperatures());
            }
            sensors.power.extend(chip.power());
            sensors.voltages.extend(chip.voltages());
        }
        let Self { temperatures, cpu_speeds, power, voltages } = &mut sensors;
        for list in [temperatures, cpu_speeds, power, voltages] {
            make_unique(list);
        }
        sensors
    }
}

/// A sensor, and the files that it is read from.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) sensor: Arc<Sensor>,
    pub(super) source: Source,
    /// What it can read; anything else is a sensor that is off or broken.
    pub(super) range: (f64, f64),
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The number in a file, times a factor.
    Of(PathBuf, f64),
    /// The product of the numbers in two files, times a factor.
    Product(PathBuf, PathBuf, f64),
}

/// From below the coldest winter to above what silicon survives.
pub(super) const CELSIUS: (f64, f64) = (-100.0, 250.0);
/// Whatever is not negative and still a number that makes sense.
pub(super) const POSITIVE: (f64, f64) = (0.0, 1e12);
/// Volts below ground, too.
pub(super) const VOLTS: (f64, f64) = (-1e6, 1e6);

impl Probe {
    fn read(&self) -> Option<Measured> {
        let value = match &self.source {
            Source::Of(path, factor) => number(path)? as f64 * factor,
            Source::Product(a, b, factor) => {
                // Two that are negative must not pass for a sound product.
                let a = number(a).filter(|value| *value >= 0)?;
                a as f64 * number(b)? as f64 * factor
            }
        };
        let (low, high) = self.range;
        (low..=high).contains(&value).then(|| Measured { sensor: Arc::clone(&self.sensor), value })
    }
}

/// What they read now; those that do not answer are left out.
pub(super) fn read(probes: &[Probe]) -> Vec<Measured> {
    probes.iter().filter_map(Probe::read).collect()
}

/// The clock of each group of cores that share one.
fn clocks(root: &Root) -> Vec<Probe> {
    let policies = root.numbered("sys/devices/system/cpu/cpufreq", "policy");
    let probe = |(number, folder): (u32, PathBuf)| {
        let cores = text(&folder.join("related_cpus")).unwrap_or_else(|| number.to_string());
        let sensor = Sensor { id: format!("cpufreq/policy{number}"), kind: "cpu", name: span(&cores), location: None };
        let source = Source::Of(folder.join("scaling_cur_freq"), 1000.0);
        Probe { sensor: Arc::new(sensor), source, range: POSITIVE }
    };
    policies.into_iter().map(probe).collect()
}

/// `0 1 2 3` as `cpu0-3`.
fn span(cores: &str) -> String {
    let numbers: Option<Vec<u32>> = cores.split_ascii_whitespace().map(|core| core.parse().ok()).collect();
    match numbers.as_deref() {
        Some([one]) => format!("cpu{one}"),
        Some([first, .., last])
            if last.checked_sub(*first) == u32::try_from(cores.split_ascii_whitespace().count() - 1).ok() =>
        {
            format!("cpu{first}-{last}")
        }
        Some([_, ..]) => format!("cpu{}", cores.split_ascii_whitespace().collect::<Vec<_>>().join(",")),
        _ => "cpu".to_owned(),
    }
}

/// Numbers those whose words are the same, in the order of the kernel.
fn make_unique(probes: &mut [Probe]) {
    let mut taken = BTreeSet::new();
    for probe in probes {
        let id = probe.sensor.id.clone();
        let free = (1..).map(|n| if n == 1 { id.clone() } else { format!("{id}#{n}") }).find(|id| !taken.contains(id));
        let free = free.unwrap_or(id);
        taken.insert(free.clone());
        Arc::make_mut(&mut probe.sensor).id = free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_as_a_span_where_they_are_one() {
        for (cores, told) in
            [("0", "cpu0"), ("0 1 2 3", "cpu0-3"), ("0 4", "cpu0,4"), ("", "cpu"), ("x", "cpu"), ("3 1", "cpu3,1")]
        {
            assert_eq!(span(cores), told, "{cores}");
        }
    }
}
