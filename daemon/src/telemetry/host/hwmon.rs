//! Chips that measure: `/sys/class/hwmon`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Root, names, text};
use super::readings::Sensor;
use super::sensors::{CELSIUS, POSITIVE, Probe, Source, VOLTS};

/// A meter of voltage and current for three rails. What it has beyond the third is the voltage over its own shunts.
const INA3221: &str = "ina3221";
const INA3221_RAILS: u32 = 3;

/// A chip, with the names of its files.
#[derive(Debug)]
pub(super) struct Chip {
    folder: PathBuf,
    /// What its driver calls it, such as `coretemp`.
    pub(super) name: String,
    /// Which one of that name: by its place on the bus, which stays, not by its number, which does not.
    id: String,
    /// Whether it only repeats a thermal zone.
    pub(super) is_zone: bool,
    files: Vec<String>,
}

/// All chips that have a name.
pub(super) fn chips(root: &Root) -> Vec<Chip> {
    let folders = root.numbered("sys/class/hwmon", "hwmon");
    folders.into_iter().filter_map(|(_, folder)| Chip::at(root, folder)).collect()
}

impl Chip {
    fn at(root: &Root, folder: PathBuf) -> Option<Self> {
        let name = text(&folder.join("name"))?;
        let real = root.real(&folder).unwrap_or_default();
        let is_zone = real.components().any(|part| part.as_os_str().to_string_lossy().starts_with("thermal_zone"));
        let device = root.real(&folder.join("device")).as_deref().and_then(place);
        let id = device.map_or_else(|| name.clone(), |device| format!("{name}@{device}"));
        Some(Self { files: names(&folder), folder, name, id, is_zone })
    }

    /// Files of the chip such as `temp1_input`: the number, and the path.
    fn inputs(&self, prefix: &str, suffix: &str) -> Vec<(u32, PathBuf)> {
        let number = |name: &String| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok();
        let mut inputs: Vec<(u32, PathBuf)> =
            self.files.iter().filter_map(|name| Some((number(name)?, self.folder.join(name)))).collect();
        inputs.sort();
        inputs
    }

    /// Files that tell of alarms, such as `curr1_crit_alarm`.
    pub(super) fn alarms(&self, prefix: &str, suffix: &str) -> impl Iterator<Item = PathBuf> {
        self.inputs(prefix, suffix).into_iter().map(|(_, path)| path)
    }

    fn sensor(&self, input: &str, kind: &'static str, label: Option<String>) -> Arc<Sensor> {
        Arc::new(Sensor { id: format!("{}/{input}", self.id), kind, name: self.name.clone(), location: label })
    }

    fn label(&self, input: &str) -> Option<String> {
        text(&self.folder.join(format!("{input}_label")))
    }

    pub(super) fn temperatures(&self) -> Vec<Probe> {
        let probe = |(number, path)| {
            let input = format!("temp{number}");
            let sensor = self.sensor(&input, "temperature", self.label(&input));
            Probe { sensor, source: Source::Of(path, 0.001), range: CELSIUS }
        };
        self.inputs("temp", "_input").into_iter().map(probe).collect()
    }

    pub(super) fn voltages(&self) -> Vec<Probe> {
        let probe = |(number, path)| {
            let input = format!("in{number}");
            let sensor = self.sensor(&input, "voltage", self.label(&input));
            Probe { sensor, source: Source::Of(path, 0.001), range: VOLTS }
        };
        let is_rail = |(number, _): &(u32, PathBuf)| self.name != INA3221 || *number <= INA3221_RAILS;
        self.inputs("in", "_input").into_iter().filter(is_rail).map(probe).collect()
    }

    /// Meters of power, and those of voltage and current.
    pub(super) fn power(&self) -> Vec<Probe> {
        let mut meters = self.inputs("power", "_input");
        for (number, path) in self.inputs("power", "_average") {
            if meters.iter().all(|(other, _)| *other != number) {
                meters.push((number, path));
            }
        }
        meters.sort();
        let meter = |(number, path)| {
            let input = format!("power{number}");
            let label = self.label(&input);
            let sensor = self.sensor(&input, taker(label.as_deref()), label);
            Probe { sensor, source: Source::Of(path, 1e-6), range: POSITIVE }
        };
        let rail = |(number, volts): (u32, PathBuf)| {
            let amperes = self.folder.join(format!("curr{number}_input"));
            let label = self.label(&format!("in{number}"));
            let sensor = self.sensor(&format!("power{number}"), taker(label.as_deref()), label);
            // Millivolts times milliamperes.
            Probe { sensor, source: Source::Product(volts, amperes, 1e-6), range: POSITIVE }
        };
        let has_current = |number: u32| self.files.iter().any(|name| *name == format!("curr{number}_input"));
        let is_rail = |number: u32| self.name == INA3221 && number <= INA3221_RAILS && has_current(number);
        let rails = self.inputs("in", "_input").into_iter().filter(|(number, _)| is_rail(*number)).map(rail);
        meters.into_iter().map(meter).chain(rails).collect()
    }
}

/// What a rail feeds, by its label, in the words of `hw.type`.
fn taker(label: Option<&str>) -> &'static str {
    let label = label.unwrap_or_default().to_ascii_uppercase();
    let has = |words: &[&str]| label.split(['_', ' ', '-']).any(|part| words.contains(&part));
    if has(&["IN", "VIN"]) {
        "enclosure"
    } else if has(&["CPU"]) {
        "cpu"
    } else if has(&["GPU"]) {
        "gpu"
    } else {
        "power_supply"
    }
}

/// Names the device in a way that stays: the last part of its path that is no number given in the order of discovery, as
/// `nvme0` in `…/0000:01:00.0/nvme/nvme0` is.
fn place(device: &Path) -> Option<String> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let last = name(device)?;
    let class = device.parent().and_then(name).unwrap_or_default();
    let is_counted =
        last.strip_prefix(&class).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    if class.is_empty() || !is_counted { Some(last) } else { device.parent()?.parent().and_then(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_what_stays() {
        for (path, told) in [
            ("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0", "0000:01:00.0"),
            ("sys/devices/platform/coretemp.0", "coretemp.0"),
            ("sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040", "1-0040"),
            ("coretemp.0", "coretemp.0"),
        ] {
            assert_eq!(place(Path::new(path)).as_deref(), Some(told));
        }
        assert_eq!(place(Path::new("")), None);
    }

    #[test]
    fn rails_are_known_by_their_labels() {
        for (label, told) in [
            ("VDD_IN", "enclosure"),
            ("VDD_CPU_GPU_CV", "cpu"),
            ("VDD_GPU_SOC", "gpu"),
            ("VIN_SYS_5V0", "enclosure"),
            ("VDDQ_VDD2_1V8AO", "power_supply"),
            ("", "power_supply"),
        ] {
            assert_eq!(taker(Some(label)), told, "{label}");
        }
    }
}
