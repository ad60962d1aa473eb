//! Every metric, declared once: instruments, records, the reference page and the tests read this table.
//!
//! Names, units, attributes and buckets are those of the OpenTelemetry semantic conventions, [`SEMCONV`] and
//! [`SEMCONV_GENAI`]; what these do not know is under `recurve.`.

use recurve_proto::v1::{MetricDescription, MetricKind};

/// The revision of <https://github.com/open-telemetry/semantic-conventions> for `rpc.*`, `system.*`, `process.*` and `hw.*`.
pub const SEMCONV: &str = "v1.44.0";
/// The revision of <https://github.com/open-telemetry/semantic-conventions-genai> for `gen_ai.*` (status: Development).
pub const SEMCONV_GENAI: &str = "004902b8cb70aa5ae6ca4ae07132b7daabcd3e10";

/// What an instrument measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// The same, where the conventions call for an UpDownCounter: it may be added up over attributes.
    UpDownCounter,
    /// A sum that only grows.
    Counter,
    /// How many values lie between these upper bounds; the last bucket has none. They never change for a name: records
    /// have only counts.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// The attributes that its series have.
    pub attributes: &'static [&'static str],
    /// What it means.
    pub doc: &'static str,
}

impl Metric {
    /// As it goes over the wire.
    pub fn description(&self) -> MetricDescription {
        let (kind, bounds) = match self.kind {
            Kind::Gauge | Kind::UpDownCounter => (MetricKind::Gauge, &[][..]),
            Kind::Counter => (MetricKind::Counter, &[][..]),
            Kind::Histogram(bounds) => (MetricKind::Histogram, bounds),
        };
        MetricDescription {
            name: self.name.to_owned(),
            unit: self.unit.to_owned(),
            kind: kind.into(),
            description: self.doc.to_owned(),
            bounds: bounds.to_vec(),
        }
    }

    /// The bounds of a histogram; none for others.
    pub fn bounds(&self) -> &'static [f64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Gauge | Kind::UpDownCounter | Kind::Counter => &[],
        }
    }
}

/// The metric with this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Doubling from 10 ms to 82 s, as the conventions say.
const REQUEST: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// The conventions' buckets up to 10 s, and further ones, since a small board takes minutes to read a long prompt.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 320.0,
];
/// The conventions' buckets.
const OUTPUT_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// The conventions' buckets.
const CALL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

const GEN_AI_DURATION: &[&str] = &[
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
    "error.type",
];
/// `error.type` is the duration's alone.
const GEN_AI: &[&str] = GEN_AI_DURATION.split_at(6).0;
const SENSOR: &[&str] = &["hw.id", "hw.name", "hw.sensor_location"];

/// Names of the metrics that programs ask for.
pub mod name {
    /// From acceptance to the last token.
    pub const REQUEST_DURATION: &str = "gen_ai.server.request.duration";
    /// From acceptance to the first token.
    pub const TIME_TO_FIRST_TOKEN: &str = "gen_ai.server.time_to_first_token";
    /// Between two tokens.
    pub const TIME_PER_OUTPUT_TOKEN: &str = "gen_ai.server.time_per_output_token";
    /// Calls of every method.
    pub const CALL_DURATION: &str = "rpc.server.call.duration";
    /// Of all cores, by mode.
    pub const CPU: &str = "system.cpu.utilization";
    /// Bytes, by state.
    pub const MEMORY: &str = "system.memory.usage";
    /// Bytes of the state directory's file system.
    pub const FILESYSTEM: &str = "system.filesystem.usage";
    /// Bytes, by interface and direction.
    pub const NETWORK: &str = "system.network.io";
    /// Resident bytes of the daemon.
    pub const PROCESS_MEMORY: &str = "process.memory.usage";
    /// Seconds of processor, by mode.
    pub const PROCESS_CPU: &str = "process.cpu.time";
    /// Since the daemon started.
    pub const PROCESS_UPTIME: &str = "process.uptime";
    /// Degrees Celsius.
    pub const TEMPERATURE: &str = "hw.temperature";
    /// Hertz.
    pub const CPU_SPEED: &str = "hw.cpu.speed";
    /// Watts.
    pub const POWER: &str = "hw.power";
    /// Volts.
    pub const VOLTAGE: &str = "hw.voltage";
    /// 1 while the hardware complains of it.
    pub const HW_ALARM: &str = "recurve.hw.alarm";
    /// Requests that wait.
    pub const QUEUE_DEPTH: &str = "recurve.queue.depth";
    /// Requests that may wait.
    pub const QUEUE_LIMIT: &str = "recurve.queue.limit";
    /// How long requests waited.
    pub const QUEUE_WAIT: &str = "recurve.queue.wait";
    /// Requests that are computed.
    pub const ACTIVE_ROWS: &str = "recurve.rows.active";
    /// Prompt tokens to be read.
    pub const PREFILL_BACKLOG: &str = "recurve.prefill.backlog";
    /// Tokens read and made.
    pub const TOKENS: &str = "recurve.tokens";
    /// Conversations that are kept.
    pub const SESSIONS: &str = "recurve.sessions";
    /// 1, with the model in the attributes.
    pub const MODEL: &str = "recurve.model.info";
    /// Models that were given up for the one before.
    pub const ROLLBACKS: &str = "recurve.model.rollbacks";
    /// Telemetry that could not be kept.
    pub const DROPPED: &str = "recurve.telemetry.dropped";
    /// Telemetry that waits for the collector.
    pub const OUTBOX: &str = "recurve.telemetry.outbox.size";
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    attributes: &'static [&'static str],
    doc: &'static str,
) -> Metric {
    Metric { name, unit, kind, attributes, doc }
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    metric(
        name::REQUEST_DURATION,
        "s",
        Kind::Histogram(REQUEST),
        GEN_AI_DURATION,
        "From the moment a request for text was accepted until its last token, or until it failed.",
    ),
    metric(
        name::TIME_TO_FIRST_TOKEN,
        "s",
        Kind::Histogram(FIRST_TOKEN),
        GEN_AI,
        "From the moment a request was accepted until its first token was made, of requests that were answered.",
    ),
    metric(
        name::TIME_PER_OUTPUT_TOKEN,
        "s",
        Kind::Histogram(OUTPUT_TOKEN),
        GEN_AI,
        "The mean time between two tokens of an answer, after its first one, of requests that were answered with at least two.",
    ),
    metric(
        name::CALL_DURATION,
        "s",
        Kind::Histogram(CALL),
        &["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"],
        "How long a call took, from its request to the last message of its answer. Calls that only watch or follow are not counted.",
    ),
    metric(
        name::CPU,
        "1",
        Kind::Gauge,
        &["cpu.mode"],
        "The share of all cores' time that went there: `user`, `nice`, `system`, `idle`, `iowait`, `interrupt`, `steal`.",
    ),
    metric(
        name::MEMORY,
        "By",
        Kind::UpDownCounter,
        &["system.memory.state"],
        "The machine's memory: `used`, `free`, `buffers`, `cached`. Weights are in `cached`, as they are mapped files.",
    ),
    metric(
        name::FILESYSTEM,
        "By",
        Kind::UpDownCounter,
        &["system.filesystem.mountpoint", "system.filesystem.state", "system.filesystem.type"],
        "The file system that `state_dir` is on: `used`, `free`, `reserved`.",
    ),
    metric(
        name::NETWORK,
        "By",
        Kind::Counter,
        &["network.interface.name", "network.io.direction"],
        "Bytes that came and went, by network interface; the loopback one is left out.",
    ),
    metric(
        name::PROCESS_MEMORY,
        "By",
        Kind::UpDownCounter,
        &[],
        "Physical memory of the daemon, mapped weights included.",
    ),
    metric(name::PROCESS_CPU, "s", Kind::Counter, &["cpu.mode"], "Processor time of the daemon: `user`, `system`."),
    metric(name::PROCESS_UPTIME, "s", Kind::Gauge, &[], "How long the daemon has been running."),
    metric(name::TEMPERATURE, "Cel", Kind::Gauge, SENSOR, "What each sensor of the machine reads."),
    metric(
        name::CPU_SPEED,
        "Hz",
        Kind::Gauge,
        &["hw.id", "hw.name"],
        "The clock of each group of cores that share one.",
    ),
    metric(
        name::POWER,
        "W",
        Kind::Gauge,
        &["hw.id", "hw.type", "hw.name", "hw.sensor_location"],
        "What each rail with a meter takes.",
    ),
    metric(name::VOLTAGE, "V", Kind::Gauge, SENSOR, "The voltage of each rail with a meter."),
    metric(
        name::HW_ALARM,
        "1",
        Kind::Gauge,
        &["recurve.alarm"],
        "1 while the hardware complains, else 0: `throttled`, `under-voltage`, `frequency-capped`, `soft-temperature-limit`, \
         `over-current`. Only those that the board can tell of.",
    ),
    metric(name::QUEUE_DEPTH, "{request}", Kind::UpDownCounter, &[], "Requests that wait for a row."),
    metric(
        name::QUEUE_LIMIT,
        "{request}",
        Kind::UpDownCounter,
        &[],
        "Requests that may wait for a row; one more is refused.",
    ),
    metric(
        name::QUEUE_WAIT,
        "s",
        Kind::Histogram(FIRST_TOKEN),
        &["gen_ai.operation.name"],
        "How long requests waited for a row; those that ended without one, until they ended.",
    ),
    metric(
        name::ACTIVE_ROWS,
        "{row}",
        Kind::UpDownCounter,
        &[],
        "Rows of the batch that are in use: requests that are computed.",
    ),
    metric(
        name::PREFILL_BACKLOG,
        "{token}",
        Kind::UpDownCounter,
        &[],
        "Prompt tokens of requests with a row that are still to be read.",
    ),
    metric(
        name::TOKENS,
        "{token}",
        Kind::Counter,
        &["gen_ai.token.type", "gen_ai.request.model"],
        "Tokens of prompts that were read (`input`) and tokens that were made (`output`), of all requests that had a row.",
    ),
    metric(name::SESSIONS, "{session}", Kind::UpDownCounter, &[], "Conversations whose state the daemon keeps."),
    metric(
        name::MODEL,
        "1",
        Kind::Gauge,
        &["gen_ai.request.model", "recurve.bundle.digest", "recurve.kernels"],
        "Always 1: which model is served, the digest of its bundle, and whose kernels compute it: the instruction set of ours, or `onnxruntime`.",
    ),
    metric(
        name::ROLLBACKS,
        "{rollback}",
        Kind::Counter,
        &[],
        "How often the daemon gave up a model by itself for the one before.",
    ),
    metric(
        name::DROPPED,
        "By",
        Kind::Counter,
        &["recurve.reason"],
        "Telemetry that never reaches the collector: `full` (the outbox was, and the oldest went), `refused` (by the collector), \
         `failed` (the disk).",
    ),
    metric(name::OUTBOX, "By", Kind::UpDownCounter, &[], "Telemetry on the disk that waits for the collector."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bounds_rise() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.bounds().windows(2).all(|pair| pair[0] < pair[1]), "{}", metric.name);
        }
    }

    #[test]
    fn the_conventions_buckets_are_there() {
        let doubling: Vec<f64> = (0..14).map(|i| 0.01 * f64::from(1 << i)).collect();
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(REQUEST, &doubling));
        assert!(FIRST_TOKEN.contains(&0.001) && FIRST_TOKEN.contains(&10.0) && *FIRST_TOKEN.last().unwrap() > 10.0);
    }
}
