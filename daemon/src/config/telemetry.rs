//! The settings of telemetry. Each field is documented, with its unit and bounds, at its key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::read::Reader;

/// What is measured, kept and sent.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// `telemetry.dir`
    pub dir: Option<PathBuf>,
    /// `telemetry.interval`
    pub interval: Duration,
    /// `telemetry.history_bytes`
    pub history_bytes: u64,
    /// `telemetry.minutes`
    pub minutes: Duration,
    /// `telemetry.hours`
    pub hours: Duration,
    /// The collector, where there is one.
    pub collector: Option<Collector>,
    /// `telemetry.outbox_bytes`
    pub outbox_bytes: u64,
    /// `telemetry.traces`
    pub traces: u64,
    /// `telemetry.resource`
    pub resource: Vec<(String, String)>,
    /// `telemetry.content`
    pub content: bool,
    /// `telemetry.prometheus`
    pub prometheus: Option<SocketAddr>,
}

/// How a collector is reached.
#[derive(Debug, Clone)]
pub struct Collector {
    /// `telemetry.endpoint`
    pub endpoint: String,
    /// `telemetry.export_interval`
    pub every: Option<Duration>,
    /// `telemetry.headers`
    pub headers: Vec<(String, String)>,
    /// `telemetry.timeout`
    pub timeout: Duration,
    /// `telemetry.ca`
    pub ca: Option<PathBuf>,
    /// `telemetry.certificate` and `telemetry.key`
    pub own: Option<(PathBuf, PathBuf)>,
}

const DAY: u64 = 24 * 60 * 60;

impl TelemetrySettings {
    /// Reads every key once; what is wrong is in the reader.
    pub(super) fn read(reader: &mut Reader) -> Self {
        let seconds = |reader: &mut Reader, path, unit| {
            Duration::from_secs(reader.integer(path).unwrap_or(1).saturating_mul(unit))
        };
        let dir = reader.path("telemetry.dir");
        let interval = seconds(reader, "telemetry.interval", 1);
        let history_bytes = reader.integer("telemetry.history_bytes").unwrap_or_default();
        let minutes = seconds(reader, "telemetry.minutes", DAY);
        let hours = seconds(reader, "telemetry.hours", DAY);
        let endpoint = reader.url("telemetry.endpoint");
        let every = reader.integer("telemetry.export_interval").map(Duration::from_secs);
        reader.choice("telemetry.protocol");
        let headers = reader.pairs("telemetry.headers");
        let timeout = seconds(reader, "telemetry.timeout", 1);
        let ca = reader.path("telemetry.ca");
        let own = (reader.path("telemetry.certificate"), reader.path("telemetry.key"));
        let outbox_bytes = reader.integer("telemetry.outbox_bytes").unwrap_or_default();
        let traces = reader.integer("telemetry.traces").unwrap_or_default();
        let resource = reader.pairs("telemetry.resource");
        let content = reader.bool("telemetry.content");
        let prometheus = reader.socket("telemetry.prometheus");
        let own = match own {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                reader.reject("telemetry.key", "is not set, and telemetry.certificate needs it");
                None
            }
            (None, Some(_)) => {
                reader.reject("telemetry.certificate", "is not set, and telemetry.key belongs to it");
                None
            }
        };
        if hours < minutes {
            reader.reject("telemetry.hours", "must not be less than telemetry.minutes");
        }
        let collector = endpoint.map(|endpoint| Collector { endpoint, every, headers, timeout, ca, own });
        Self {
            dir,
            interval,
            history_bytes,
            minutes,
            hours,
            collector,
            outbox_bytes,
            traces,
            resource,
            content,
            prometheus,
        }
    }
}
