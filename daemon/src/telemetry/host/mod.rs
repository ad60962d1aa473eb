//! What the daemon can tell of its machine, from the files of the kernel.
//!
//! Every file is read under a root, so that recorded trees of files can stand for a machine. What is missing, unreadable or no
//! number is left out; nothing of it is an error.

mod alarms;
mod cpu;
mod files;
mod filesystem;
mod hwmon;
mod machine;
mod memory;
mod network;
mod process;
mod readings;
mod sensors;
mod thermal;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use alarms::since_start;
pub use machine::Machine;
pub use readings::{Alarm, Filesystem, Interface, Measured, Memory, Readings, Sensor};

use alarms::Alarms;
use cpu::Cpu;
use files::Root;
use filesystem::Mount;
use network::Network;
use sensors::Sensors;

/// How often sensors and mounts are looked for again: a disk may be plugged in, a driver loaded.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// A machine that is read again and again.
#[derive(Debug)]
pub struct Host {
    root: Root,
    state_dir: PathBuf,
    cpu: Cpu,
    network: Network,
    mount: Option<Mount>,
    sensors: Sensors,
    alarms: Alarms,
    looked: Instant,
}

impl Host {
    /// The machine whose files lie under `root`, and the file system that `state_dir` is on, or will be.
    pub fn new(root: &Path, state_dir: &Path) -> Self {
        let root = Root::new(root);
        Self {
            state_dir: state_dir.to_owned(),
            cpu: Cpu::default(),
            network: Network::default(),
            mount: Mount::of(&root, state_dir),
            sensors: Sensors::find(&root),
            alarms: Alarms::find(&root),
            looked: Instant::now(),
            root,
        }
    }

    /// Everything, now. Shares of the processor are those since the last reading, or since the machine started at the first.
    pub fn read(&mut self) -> Readings {
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.look_again();
        }
        let process = process::read(&self.root).unwrap_or_default();
        Readings {
            cpu: self.cpu.read(&self.root),
            memory: memory::read(&self.root),
            filesystem: self.mount.as_ref().and_then(|mount| mount.read(&self.state_dir)),
            network: self.network.read(&self.root),
            process_memory: process.memory,
            process_cpu: process.cpu,
            temperatures: sensors::read(&self.sensors.temperatures),
            cpu_speeds: sensors::read(&self.sensors.cpu_speeds),
            power: sensors::read(&self.sensors.power),
            voltages: sensors::read(&self.sensors.voltages),
            alarms: self.alarms.read(),
        }
    }

    /// Looks for sensors and mounts. What is counted goes on from where it was.
    fn look_again(&mut self) {
        self.mount = Mount::of(&self.root, &self.state_dir);
        self.sensors = Sensors::find(&self.root);
        self.alarms.find_again(&self.root);
        self.looked = Instant::now();
    }
}

#[cfg(test)]
mod tests;
