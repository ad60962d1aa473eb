//! What stands at a moment, of the machine and of the node: read for the metrics, for the history and for who watches.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use recurve_telemetry::catalogue::name;

use super::host::{Host, Machine, Measured, Readings};
use super::outbox::Signal;
use crate::config::Settings;
use crate::node::{Node, Phase};

/// The machine is not read again within this time.
const FRESH: Duration = Duration::from_millis(800);

/// What stands at a moment.
#[derive(Debug)]
pub struct Observed {
    machine: Machine,
    host: Mutex<(Host, Readings, Option<Instant>)>,
    node: OnceLock<Weak<Node>>,
    started: Instant,
    rollbacks: AtomicU64,
    outbox: AtomicU64,
    /// A bit for each signal that the collector does not take.
    away: AtomicU8,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
}

impl Observed {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let root = Path::new("/");
        Arc::new(Self {
            machine: Machine::read(root),
            host: Mutex::new((Host::new(root, &settings.state_dir), Readings::default(), None)),
            node: OnceLock::new(),
            started: Instant::now(),
            rollbacks: AtomicU64::new(0),
            outbox: AtomicU64::new(0),
            away: AtomicU8::new(0),
            dropped: Mutex::default(),
        })
    }

    pub(super) fn look_at(&self, node: &Arc<Node>) {
        // Once in a process.
        let _ = self.node.set(Arc::downgrade(node));
    }

    pub(super) fn rolled_back(&self) {
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes wait for the collector.
    pub(super) fn waiting(&self, bytes: u64) {
        self.outbox.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes never reach the collector, and why.
    pub(super) fn dropped(&self, reason: &'static str, bytes: u64) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        *dropped.entry(reason).or_default() += bytes;
    }

    /// How many bytes never reached it for this reason.
    pub(super) fn dropped_because(&self, reason: &str) -> u64 {
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.get(reason).copied().unwrap_or_default()
    }

    /// The collector does not take a signal; whether it took all before.
    pub(super) fn collector_is_away(&self, signal: Signal) -> bool {
        self.away.fetch_or(1 << signal as u8, Ordering::Relaxed) == 0
    }

    /// The collector has all of a signal; whether it is all of all now.
    pub(super) fn collector_is_back(&self, signal: Signal) -> bool {
        let bit = 1 << signal as u8;
        self.away.fetch_and(!bit, Ordering::Relaxed) == bit
    }

    /// Whether it does not take something.
    pub fn is_collector_away(&self) -> bool {
        self.away.load(Ordering::Relaxed) != 0
    }

    /// The machine, as far as it stays the same.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Reads the machine, unless that was done a moment ago.
    pub fn refresh(&self) {
        let mut host = self.host();
        if host.2.is_none_or(|at| at.elapsed() >= FRESH) {
            host.1 = host.0.read();
            host.2 = Some(Instant::now());
        }
    }

    /// What was read of the machine last.
    pub fn readings(&self) -> Readings {
        self.host().1.clone()
    }

    /// What the hardware complains of.
    pub fn hardware_alarms(&self) -> Vec<&'static str> {
        self.host().1.alarms.iter().filter(|alarm| alarm.on).map(|alarm| alarm.name).collect()
    }

    /// Bytes that wait for the collector.
    pub fn outbox(&self) -> u64 {
        self.outbox.load(Ordering::Relaxed)
    }

    fn host(&self) -> MutexGuard<'_, (Host, Readings, Option<Instant>)> {
        // A reading is written whole.
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives each value of a metric that is no histogram, with its attributes.
    pub(super) fn each(&self, metric: &str, mut give: impl FnMut(f64, &[KeyValue])) {
        match metric {
            name::ROLLBACKS => give(self.rollbacks.load(Ordering::Relaxed) as f64, &[]),
            name::OUTBOX => give(self.outbox() as f64, &[]),
            name::PROCESS_UPTIME => give(self.started.elapsed().as_secs_f64(), &[]),
            name::DROPPED => {
                for (reason, bytes) in self.dropped.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    give(*bytes as f64, &[KeyValue::new("recurve.reason", *reason)]);
                }
            }
            _ => {
                of_host(&self.host().1, metric, &mut give);
                if let Some(node) = self.node.get().and_then(Weak::upgrade) {
                    of_node(&node, metric, &mut give);
                }
            }
        }
    }
}

type Give<'a> = &'a mut dyn FnMut(f64, &[KeyValue]);

fn of_host(readings: &Readings, metric: &str, give: Give<'_>) {
    match metric {
        name::CPU => {
            for (mode, share) in &readings.cpu {
                give(*share, &[KeyValue::new("cpu.mode", *mode)]);
            }
        }
        name::MEMORY => {
            for (state, bytes) in readings.memory.iter().flat_map(|memory| memory.states()) {
                give(bytes as f64, &[KeyValue::new("system.memory.state", state)]);
            }
        }
        name::FILESYSTEM => {
            let Some(filesystem) = &readings.filesystem else { return };
            for (state, bytes) in filesystem.states() {
                let mountpoint = filesystem.mountpoint.to_string_lossy().into_owned();
                give(
                    bytes as f64,
                    &[
                        KeyValue::new("system.filesystem.mountpoint", mountpoint),
                        KeyValue::new("system.filesystem.state", state),
                        KeyValue::new("system.filesystem.type", filesystem.kind.clone()),
                    ],
                );
            }
        }
        name::NETWORK => {
            for interface in &readings.network {
                for (direction, bytes) in [("receive", interface.received), ("transmit", interface.sent)] {
                    let named = KeyValue::new("network.interface.name", interface.name.clone());
                    give(bytes as f64, &[named, KeyValue::new("network.io.direction", direction)]);
                }
            }
        }
        name::PROCESS_MEMORY => {
            if let Some(bytes) = readings.process_memory {
                give(bytes as f64, &[]);
            }
        }
        name::PROCESS_CPU => {
            for (mode, seconds) in &readings.process_cpu {
                give(*seconds, &[KeyValue::new("cpu.mode", *mode)]);
            }
        }
        name::TEMPERATURE => of_sensors(&readings.temperatures, Described::Location, give),
        name::VOLTAGE => of_sensors(&readings.voltages, Described::Location, give),
        name::POWER => of_sensors(&readings.power, Described::LocationAndType, give),
        name::CPU_SPEED => of_sensors(&readings.cpu_speeds, Described::Name, give),
        name::HW_ALARM => {
            for alarm in &readings.alarms {
                give(f64::from(u8::from(alarm.on)), &[KeyValue::new("recurve.alarm", alarm.name)]);
            }
        }
        _ => {}
    }
}

/// What is told of a sensor beside its id and name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Described {
    Name,
    Location,
    LocationAndType,
}

fn of_sensors(sensors: &[Measured], described: Described, give: Give<'_>) {
    for Measured { sensor, value } in sensors {
        let mut attributes =
            vec![KeyValue::new("hw.id", sensor.id.clone()), KeyValue::new("hw.name", sensor.name.clone())];
        if described == Described::LocationAndType {
            attributes.push(KeyValue::new("hw.type", sensor.kind));
        }
        if let (Described::Location | Described::LocationAndType, Some(location)) = (described, &sensor.location) {
            attributes.push(KeyValue::new("hw.sensor_location", location.clone()));
        }
        give(*value, &attributes);
    }
}

fn of_node(node: &Node, metric: &str, give: Give<'_>) {
    let phase = node.phase();
    let serving = match &phase {
        Phase::Serving(serving) => Some(serving),
        _ => None,
    };
    match metric {
        name::QUEUE_DEPTH => give(serving.map_or(0, |serving| serving.admission.waiting()) as f64, &[]),
        name::QUEUE_LIMIT => {
            if let Some(serving) = serving {
                give(serving.admission.limit() as f64, &[]);
            }
        }
        name::ACTIVE_ROWS => give(serving.map_or(0, |serving| serving.meter.active_rows()) as f64, &[]),
        name::PREFILL_BACKLOG => give(serving.map_or(0, |serving| serving.meter.prefill_backlog()) as f64, &[]),
        // No conversation is kept between requests yet.
        name::SESSIONS => give(0.0, &[]),
        name::TOKENS => {
            for (model, (input, output)) in node.tokens() {
                for (kind, tokens) in [("input", input), ("output", output)] {
                    let of = KeyValue::new("gen_ai.request.model", model.clone());
                    give(tokens as f64, &[KeyValue::new("gen_ai.token.type", kind), of]);
                }
            }
        }
        name::MODEL => {
            let Some(serving) = serving else { return };
            give(
                1.0,
                &[
                    KeyValue::new("gen_ai.request.model", serving.model.name.clone()),
                    KeyValue::new("recurve.bundle.digest", serving.model.bundle.clone()),
                    KeyValue::new("recurve.kernels", serving.kernels),
                ],
            );
        }
        _ => {}
    }
}
