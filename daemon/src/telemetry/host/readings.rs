//! One reading of a machine, as plain data.

use std::path::PathBuf;
use std::sync::Arc;

/// What was read at one moment. What the machine does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// The share of all cores' time, from 0 to 1, that went to each mode: `user`, `nice`, `system`, `idle`, `iowait`,
    /// `interrupt`, `steal`.
    pub cpu: Vec<(&'static str, f64)>,
    /// The machine's memory.
    pub memory: Option<Memory>,
    /// The file system of the state directory.
    pub filesystem: Option<Filesystem>,
    /// Network interfaces but the loopback one, by name.
    pub network: Vec<Interface>,
    /// Resident bytes of this process.
    pub process_memory: Option<u64>,
    /// Seconds of processor that this process took, by mode: `user`, `system`.
    pub process_cpu: Vec<(&'static str, f64)>,
    /// Degrees Celsius.
    pub temperatures: Vec<Measured>,
    /// Hertz, of each group of cores that share a clock.
    pub cpu_speeds: Vec<Measured>,
    /// Watts.
    pub power: Vec<Measured>,
    /// Volts.
    pub voltages: Vec<Measured>,
    /// Those that the board can tell of.
    pub alarms: Vec<Alarm>,
}

/// Bytes of memory. The four states add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What may still be taken without swapping, by the kernel's estimate.
    pub available: u64,
    /// Neither of the other three.
    pub used: u64,
    /// Nobody's.
    pub free: u64,
    /// Of block devices.
    pub buffers: u64,
    /// Of files.
    pub cached: u64,
}

impl Memory {
    /// By state, as the conventions name them.
    pub fn states(&self) -> [(&'static str, u64); 4] {
        [("used", self.used), ("free", self.free), ("buffers", self.buffers), ("cached", self.cached)]
    }
}

/// Bytes of a file system. The three states add up to its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Such as `ext4`.
    pub kind: String,
    /// Taken.
    pub used: u64,
    /// For everyone.
    pub free: u64,
    /// For the superuser only.
    pub reserved: u64,
}

impl Filesystem {
    /// By state, as the conventions name them.
    pub fn states(&self) -> [(&'static str, u64); 3] {
        [("used", self.used), ("free", self.free), ("reserved", self.reserved)]
    }
}

/// Bytes that went through a network interface since the daemon began to look. They only grow, also where the kernel's counters start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Such as `eth0`.
    pub name: String,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
}

/// What measures. Its words are the same after a restart of the machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sensor {
    /// `hw.id`: unique on the machine, such as `ina3221@1-0040/in1`.
    pub id: String,
    /// `hw.type`: `temperature`, `voltage`, `cpu`, and of power what takes it: `cpu`, `gpu`, `enclosure`, `power_supply`.
    pub kind: &'static str,
    /// `hw.name`: the chip, the zone or the cores.
    pub name: String,
    /// `hw.sensor_location`: what is measured, such as `Core 0`; where the machine says.
    pub location: Option<String>,
}

/// What a sensor reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Which one.
    pub sensor: Arc<Sensor>,
    /// In the unit of its list.
    pub value: f64,
}

/// Whether the hardware complains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// `throttled`, `under-voltage`, `frequency-capped`, `soft-temperature-limit` or `over-current`.
    pub name: &'static str,
    /// Whether it does now, or did since the last reading.
    pub on: bool,
}
