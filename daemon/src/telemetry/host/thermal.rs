//! Thermal zones: `/sys/class/thermal`.

use std::sync::Arc;

use super::files::{Root, text};
use super::readings::Sensor;
use super::sensors::{CELSIUS, Probe, Source};

/// A zone.
pub(super) struct Zone {
    /// What the kernel calls it, such as `cpu-thermal`.
    pub(super) kind: String,
    pub(super) probe: Probe,
}

/// All zones that have a name. Their numbers may differ after a restart; their names do not.
pub(super) fn zones(root: &Root) -> Vec<Zone> {
    let folders = root.numbered("sys/class/thermal", "thermal_zone");
    let zone = |(_, folder): (u32, std::path::PathBuf)| {
        let kind = text(&folder.join("type"))?;
        let sensor = Sensor {
            id: format!("thermal/{kind}"),
            kind: "temperature",
            name: kind.clone(),
            location: Some(place(&kind).to_owned()),
        };
        let source = Source::Of(folder.join("temp"), 0.001);
        Some(Zone { kind, probe: Probe { sensor: Arc::new(sensor), source, range: CELSIUS } })
    };
    folders.into_iter().filter_map(zone).collect()
}

/// What a zone is in: `cpu-thermal` is in the `cpu`.
fn place(kind: &str) -> &str {
    let endings = ["-thermal", "_thermal", "-therm", "_temp"];
    endings.iter().find_map(|ending| kind.strip_suffix(ending)).filter(|place| !place.is_empty()).unwrap_or(kind)
}
