//! The settings in effect. Each field is documented, with its unit and bounds, at its key.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use super::address::{Address, Held};
use super::read::Reader;
use super::report::Source;
use super::telemetry::TelemetrySettings;
use super::verify::VerifySettings;
use crate::trust::Mode;

/// All settings of the daemon.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `bundle`
    pub bundle: Option<PathBuf>,
    /// `listen`
    pub listen: Vec<Address>,
    /// `tls.*`
    pub tls: Option<TlsSettings>,
    /// `discovery.announce`
    pub announce: bool,
    /// `state_dir`
    pub state_dir: PathBuf,
    /// `trust.*`
    pub trust: TrustSettings,
    /// `engine.*`
    pub engine: EngineSettings,
    /// `limits.*`
    pub limits: Limits,
    /// `shutdown.grace`
    pub grace: Duration,
    /// `deploy.switch`
    pub switch: Switch,
    /// `probation.*`
    pub probation: Probation,
    /// `verify.*`; none: nothing is hashed in the background.
    pub verify: Option<VerifySettings>,
    /// `registry.*`
    pub registry: RegistrySettings,
    /// `telemetry.*`
    pub telemetry: TelemetrySettings,
    /// `log.*`
    pub log: LogSettings,
}

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// `engine.library`
    pub library: Option<PathBuf>,
    /// `engine.threads`
    pub threads: usize,
    /// `engine.slots`
    pub slots: usize,
    /// `engine.prefill_budget`
    pub prefill_budget: Option<usize>,
    /// `engine.spinning`
    pub spinning: bool,
    /// `engine.provider`
    pub provider: Provider,
    /// `engine.kernels`
    pub kernels: KernelSetting,
    /// `engine.lock_weights`
    pub lock_weights: bool,
    /// `engine.queue`
    pub queue: usize,
    /// `engine.step_limit`
    pub step_limit: Duration,
}

/// What one request, and all of them together, may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `limits.max_message_bytes`
    pub max_message_bytes: usize,
    /// `limits.max_prompt_tokens`
    pub max_prompt_tokens: usize,
    /// `limits.max_text_bytes`, or what follows from the limits of tokens
    pub max_text_bytes: usize,
    /// `limits.max_tokens`
    pub max_tokens: usize,
    /// `limits.max_score_tokens`
    pub max_score_tokens: usize,
    /// `limits.connections`
    pub connections: usize,
}

impl Limits {
    fn read(reader: &mut Reader) -> Self {
        // Texts with long runs of spaces have the most bytes a token.
        const BYTES_PER_TOKEN: usize = 16;
        const LEAST: usize = 1 << 16;
        let max_message_bytes = reader.count("limits.max_message_bytes");
        let max_prompt_tokens = reader.count("limits.max_prompt_tokens");
        let set = reader.integer("limits.max_text_bytes").and_then(|n| usize::try_from(n).ok());
        let max_tokens = reader.count("limits.max_tokens");
        let max_score_tokens = reader.count("limits.max_score_tokens");
        let derived = max_prompt_tokens.max(max_score_tokens).saturating_mul(BYTES_PER_TOKEN).max(LEAST);
        Self {
            max_message_bytes,
            max_prompt_tokens,
            max_text_bytes: set.unwrap_or(derived),
            max_tokens,
            max_score_tokens,
            connections: reader.count("limits.connections"),
        }
    }
}

/// The files of mutual TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// `tls.certificate`
    pub certificate: PathBuf,
    /// `tls.key`
    pub key: PathBuf,
    /// `tls.clients`
    pub clients: PathBuf,
}

/// How a model takes the place of the one that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Beside it where memory allows, else in its turn.
    Auto,
    /// Beside it.
    Beside,
    /// After it ended.
    InTurn,
}

/// Whose models are believed.
#[derive(Debug, Clone)]
pub struct TrustSettings {
    /// `trust.mode`, where it is set
    pub mode: Option<Mode>,
    /// `trust.root`
    pub root: Option<PathBuf>,
    /// Whether other machines can reach an address of `listen`.
    pub reachable: bool,
}

/// How long a new model has to prove itself.
#[derive(Debug, Clone, Copy)]
pub struct Probation {
    /// `probation.seconds`
    pub time: Duration,
    /// `probation.starts`
    pub starts: u32,
    /// `probation.probe`
    pub probe: Duration,
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// `registry.auth_file`
    pub auth_file: Option<PathBuf>,
    /// `registry.plain_http`
    pub plain_http: Vec<String>,
    /// `registry.ca`
    pub ca: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// `log.level`
    pub level: LogLevel,
    /// `log.format`
    pub format: LogFormat,
}

/// What is logged.
#[derive(Debug, Clone)]
pub struct LogLevel {
    /// As it was written.
    pub text: String,
    /// What it means.
    pub filter: Targets,
}

/// Where the model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// On the cores.
    Cpu,
    /// On an NVIDIA GPU, by ONNX Runtime's CUDA provider.
    Cuda,
}

/// Whose kernels compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelSetting {
    /// Those that are faster on this machine.
    Auto,
    /// Ours.
    Recurve,
    /// ONNX Runtime's.
    OnnxRuntime,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Reads every key once; what is wrong is in the reader.
    /// `inherited`: where systemd listens for the daemon, which is served whatever else is.
    pub(super) fn read(reader: &mut Reader, inherited: &[Held]) -> Self {
        let bundle = reader.path("bundle");
        let mut listen = reader.addresses("listen");
        if let Some((wider, held)) = listen.iter().find_map(|address| {
            let held = inherited.iter().find(|held| address.covers(&held.address) && !held.covers(address));
            let held = held.filter(|_| !inherited.iter().any(|held| held.address == *address));
            held.map(|held| (address.clone(), held))
        }) {
            reader.reject(
                "listen",
                format!(
                    "systemd's socket holds {}, so {wider} cannot be listened on: leave it out here, and name it in a drop-in of the \
                     socket (`systemctl edit recurved.socket`: ListenStream=)",
                    held.address
                ),
            );
        }
        // Beside an address of version 4 it says what is meant.
        let whole = |half: &Address| {
            listen.iter().chain(inherited.iter().map(|held| &held.address)).any(|other| other.is_other_half_of(half))
        };
        let half = |address: &&Address| inherited.iter().any(|held| held.is_half_of(address)) && !whole(address);
        if reader.source("listen") != Source::Sockets
            && let Some(address) = listen.iter().find(half)
        {
            reader.reject(
                "listen",
                format!(
                    "systemd's socket holds {address} for IPv6 alone: leave it out here, or for IPv4 name 0.0.0.0 with this port \
                     beside it, or set BindIPv6Only=both (`systemctl edit recurved.socket`)"
                ),
            );
        }
        listen.retain(|address| !inherited.iter().any(|held| held.covers(address)));
        listen.extend(inherited.iter().map(|held| held.address.clone()));
        let insecure = reader.bool("insecure");
        let tls = ["tls.certificate", "tls.key", "tls.clients"].map(|key| (key, reader.path(key)));
        let state_dir = reader.path("state_dir").unwrap_or_default();
        let trust = TrustSettings {
            mode: match reader.choice("trust.mode") {
                "enforce" => Some(Mode::Enforce),
                "warn" => Some(Mode::Warn),
                "off" => Some(Mode::Off),
                _ => None,
            },
            root: reader.path("trust.root"),
            reachable: listen.iter().any(|address| !address.is_local()),
        };
        let settings = Self {
            bundle,
            listen,
            tls: match &tls {
                [(_, Some(certificate)), (_, Some(key)), (_, Some(clients))] => {
                    Some(TlsSettings { certificate: certificate.clone(), key: key.clone(), clients: clients.clone() })
                }
                _ => None,
            },
            announce: reader.bool("discovery.announce"),
            state_dir,
            trust,
            engine: EngineSettings {
                library: reader.path("engine.library"),
                threads: reader.count("engine.threads"),
                slots: reader.count("engine.slots"),
                prefill_budget: reader.integer("engine.prefill_budget").and_then(|n| usize::try_from(n).ok()),
                spinning: reader.bool("engine.spinning"),
                provider: match reader.choice("engine.provider") {
                    "cuda" => Provider::Cuda,
                    _ => Provider::Cpu,
                },
                kernels: match reader.choice("engine.kernels") {
                    "recurve" => KernelSetting::Recurve,
                    "onnxruntime" => KernelSetting::OnnxRuntime,
                    _ => KernelSetting::Auto,
                },
                lock_weights: reader.bool("engine.lock_weights"),
                queue: reader.count("engine.queue"),
                step_limit: Duration::from_secs(reader.integer("engine.step_limit").unwrap_or(60).max(1)),
            },
            limits: Limits::read(reader),
            grace: Duration::from_secs(reader.integer("shutdown.grace").unwrap_or_default()),
            switch: match reader.choice("deploy.switch") {
                "beside" => Switch::Beside,
                "in_turn" => Switch::InTurn,
                _ => Switch::Auto,
            },
            probation: Probation {
                time: Duration::from_secs(reader.integer("probation.seconds").unwrap_or_default()),
                starts: reader.integer("probation.starts").and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
                probe: Duration::from_secs(reader.integer("probation.probe").unwrap_or(1).max(1)),
            },
            verify: VerifySettings::read(reader),
            registry: RegistrySettings {
                auth_file: reader.path("registry.auth_file"),
                plain_http: reader.registries("registry.plain_http"),
                ca: reader.path("registry.ca"),
            },
            telemetry: TelemetrySettings::read(reader),
            log: LogSettings {
                level: reader.log_level("log.level"),
                format: match reader.choice("log.format") {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                },
            },
        };
        if tls.iter().any(|(_, path)| path.is_some()) {
            for (key, _) in tls.iter().filter(|(_, path)| path.is_none()) {
                reader.reject(key, "is not set, and TLS needs all three: tls.certificate, tls.key and tls.clients");
            }
        }
        settings.check_together(reader, insecure, inherited);
        settings
    }

    fn check_together(&self, reader: &mut Reader, insecure: bool, inherited: &[Held]) {
        if self.trust.reachable && !insecure && self.trust.mode.is_some_and(|mode| mode < Mode::Enforce) {
            reader.reject(
                "trust.mode",
                "other machines can reach this daemon, so it serves signed models only: allowed is enforce; leave it out, or \
                 set insecure = true as well",
            );
        }
        if self.engine.provider == Provider::Cuda && self.engine.kernels == KernelSetting::Recurve {
            reader.reject(
                "engine.kernels",
                "ours compute on the CPU only: with engine.provider = cuda, allowed are auto and onnxruntime",
            );
        }
        if let Some(address) = self.telemetry.prometheus.filter(|address| !insecure && !address.ip().is_loopback()) {
            reader.reject(
                "telemetry.prometheus",
                format!(
                    "other machines can reach {address}, and everyone on that network could read all metrics: take 127.0.0.1, or \
                     set insecure = true as well"
                ),
            );
        }
        if insecure || self.tls.is_some() {
            return;
        }
        let open: Vec<&Address> = self.listen.iter().filter(|address| !address.is_local()).collect();
        let (held, open): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|&open| inherited.iter().any(|held| held.address == *open));
        let words = |open: &[&Address]| open.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !held.is_empty() {
            reader.reject_sockets(format!(
                "other machines can reach {} of recurved.socket: set tls.certificate, tls.key and tls.clients, or take it out of \
                 the socket unit (`systemctl edit recurved.socket`), or set insecure = true if everyone on that network may use \
                 the model and read what others ask it",
                words(&held)
            ));
        }
        if !open.is_empty() {
            reader.reject(
                "listen",
                format!(
                    "other machines can reach {}: set tls.certificate, tls.key and tls.clients, or listen on 127.0.0.1 or \
                     a Unix socket (and come in through SSH), or set insecure = true if everyone on that network may use \
                     the model and read what others ask it",
                    words(&open)
                ),
            );
        }
    }
}
