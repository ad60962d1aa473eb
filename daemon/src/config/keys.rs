//! Every key of the configuration, declared once: defaults, checks, `check-config` and the reference page all read
//! this table.

use super::key::{Key, Kind};
use super::verify;

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

const TOKENS: Kind = Kind::Integer { min: 1, max: 1 << 31 };

/// All keys, in the order of the reference page.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "bundle",
        kind: Kind::Path,
        default: None,
        flag: Some("--bundle"),
        doc: "Folder of the bundle to serve, an OCI image layout as `agent-cli export` writes it. Not set: \
              the daemon serves the models that `agent-cli deploy` gives it, and keeps them in `state_dir`.",
    },
    Key {
        path: "listen",
        kind: Kind::Addresses,
        default: Some(r#"["127.0.0.1:50051"]"#),
        flag: Some("--listen"),
        doc: "Addresses to serve gRPC on. `localhost` is 127.0.0.1 and, where the machine has IPv6, [::1]. Port 0 lets the \
              system choose, for each address; the log line `ready` tells the ports. \
              A Unix socket is made with mode 0660. As a service of systemd's, the sockets of `recurved.socket` are served \
              whatever is set here, and are the default; `recurved check-config` shows them.",
    },
    Key {
        path: "insecure",
        kind: Kind::Bool,
        default: Some("false"),
        flag: Some("--insecure"),
        doc: "Serve without encryption or identity on addresses that other machines can reach. Everyone on that \
              network can then use the model and read what others ask it.",
    },
    Key {
        path: "tls.certificate",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The daemon's certificate in PEM, with those between it and its authority. With it, `tls.key` and `tls.clients`, \
              every TCP address speaks TLS only. Needed for addresses that other machines can reach.",
    },
    Key {
        path: "tls.key",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The certificate's private key in PEM. Readable by the daemon's user alone.",
    },
    Key {
        path: "tls.clients",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The certificates in PEM of the authorities whose clients are heard. Whoever shows a certificate of theirs may use the \
              model, and deploy another.",
    },
    Key {
        path: "state_dir",
        kind: Kind::Path,
        default: Some(r#""/var/lib/recurve""#),
        flag: Some("--state-dir"),
        doc: "Folder for what must survive a restart: the models that were deployed. Made when it is first needed.",
    },
    Key {
        path: "trust.mode",
        kind: Kind::Choice(&["enforce", "warn", "off"]),
        default: None,
        flag: None,
        doc: "What is done about a model that is deployed and not signed: `enforce` refuses it, `warn` serves it and says so in the \
              log, `off` does not look. Not set: `enforce` where other machines can reach the daemon, and wherever a root of trust is \
              installed; otherwise `off`. Where other machines can reach the daemon, `warn` and `off` need `insecure`. It does not \
              concern `bundle`: who may change that folder needs no signature.",
    },
    Key {
        path: "trust.root",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "A root of trust, `N.root.json` of `agent-cli trust init`, that is installed at the start where none is. Afterwards \
              only what it signs counts, and this file is not read again.",
    },
    Key {
        path: "discovery.announce",
        kind: Kind::Bool,
        default: Some("true"),
        flag: None,
        doc: "Announce every TCP address that other machines can reach on the local network (multicast DNS, `_recurve._tcp`), \
              with the host's name, the version, the model's name and whether TLS is spoken, so that \
              `agent-cli devices discover` finds it. It opens nothing: who may call is decided by TLS alone.",
    },
    Key {
        path: "engine.library",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The ONNX Runtime library, `libonnxruntime.so…`, version 1.25 or later. Not set: `ORT_DYLIB_PATH`, then \
              `../lib/recurve` beside the executable's folder, then the copy of the source tree.",
    },
    Key {
        path: "engine.threads",
        kind: Kind::Integer { min: 0, max: 1024 },
        default: Some("0"),
        flag: None,
        doc: "Threads that compute. 0: one for each core that the daemon may use: its affinity (`taskset`, `CPUAffinity=`) and the \
              CPU quota of its control groups (`CPUQuota=`) count. The log line `graph loaded` has the number.",
    },
    Key {
        path: "engine.slots",
        kind: Kind::Integer { min: 1, max: 256 },
        default: Some("4"),
        flag: None,
        doc: "Requests computed at the same time, as rows of one batch. Memory for each is taken at the start: up to \
              36 MB a row for a model of 2 billion parameters.",
    },
    Key {
        path: "engine.prefill_budget",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: None,
        flag: None,
        doc: "Most prompt tokens read between two tokens of running streams: less makes the streams smoother, more \
              reads prompts faster. Not set: as many as this machine reads in about a quarter of a second, at least \
              16. Never more than the bundle's chunk; a prompt beside which nothing runs is read in whole chunks.",
    },
    Key {
        path: "engine.spinning",
        kind: Kind::Bool,
        default: Some("false"),
        flag: None,
        doc: "Let idle compute threads spin instead of sleep: a few per cent faster on a machine that does nothing \
              else, much slower on one that does.",
    },
    Key {
        path: "engine.provider",
        kind: Kind::Choice(&["cpu", "cuda"]),
        default: Some(r#""cpu""#),
        flag: None,
        doc: "Where the model is computed: on the cores, or by ONNX Runtime's CUDA provider on an NVIDIA GPU, which the library of \
              `engine.library` must have; a daemon whose library has none refuses to start. Only `cpu` was tested.",
    },
    Key {
        path: "engine.kernels",
        kind: Kind::Choice(&["auto", "recurve", "onnxruntime"]),
        default: Some(r#""auto""#),
        flag: None,
        doc: "Whose kernels compute: `recurve` reads the weights where they are mapped, starts at once and gives a \
              request the same bits whoever shares the batch; `onnxruntime` copies the weights into an order of its own \
              when it loads. `auto` has both compute for a moment at the start (a small model whole, of a large one a \
              product) and takes ONNX Runtime's where they are faster by more than 5 % or ours cannot compute; the log \
              says which and why. The choice may change with a restart, and with it the tokens that a seed gives.",
    },
    Key {
        path: "engine.lock_weights",
        kind: Kind::Bool,
        default: Some("false"),
        flag: None,
        doc: "Keep the weights in memory: the system never drops them from the page cache, however short memory is, and \
              the daemon is ready only when all are read. Needs RLIMIT_MEMLOCK (`LimitMEMLOCK=` in the unit) of at least \
              their size, or CAP_IPC_LOCK; otherwise the daemon refuses to start. With false, what the page cache lacks \
              is read ahead beside the loading.",
    },
    Key {
        path: "engine.queue",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: Some("64"),
        flag: None,
        doc: "Requests that may wait for a slot. One more is answered RESOURCE_EXHAUSTED, with the time to retry after.",
    },
    Key {
        path: "engine.step_limit",
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: Some("60"),
        flag: None,
        doc: "Longest that one step may take, in seconds: one that takes longer is ended, and the engine with it. A model on \
              probation then gives way to the one before; otherwise the daemon ends, to be started again.",
    },
    Key {
        path: "limits.max_message_bytes",
        kind: Kind::Integer { min: 1024, max: 1 << 30 },
        default: Some("4194304"),
        flag: None,
        doc: "Largest request message, in bytes. Checked before it is decoded.",
    },
    Key {
        path: "limits.max_prompt_tokens",
        kind: TOKENS,
        default: Some("131072"),
        flag: None,
        doc: "Longest prompt, and longest text to tokenize, in tokens. Memory does not depend on it; time does.",
    },
    Key {
        path: "limits.max_text_bytes",
        kind: Kind::Integer { min: 1024, max: 1 << 30 },
        default: None,
        flag: None,
        doc: "Longest text of a request, in bytes, all messages of a conversation together. A longer one is refused before it is \
              tokenized. Not set: 16 for each token that a request may have, and at least 65536.",
    },
    Key {
        path: "limits.max_tokens",
        kind: TOKENS,
        default: Some("131072"),
        flag: None,
        doc: "Most tokens that one request may generate.",
    },
    Key {
        path: "limits.max_score_tokens",
        kind: TOKENS,
        default: Some("8192"),
        flag: None,
        doc: "Most tokens that one request may have scored.",
    },
    Key {
        path: "limits.connections",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: Some("256"),
        flag: None,
        doc: "Connections open at the same time over TCP, and as many over Unix sockets. One more is closed at once.",
    },
    Key {
        path: "shutdown.grace",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("10"),
        flag: None,
        doc: "Seconds that running requests may take to finish after SIGTERM or SIGINT. What still runs then ends with \
              the finish reason SHUTDOWN. Requests that wait are answered too where they are likely to have their turn within 2 \
              seconds and their end within the grace, and are told SHUTTING_DOWN where not. A second signal ends the process at once.",
    },
    Key {
        path: "deploy.switch",
        kind: Kind::Choice(&["auto", "beside", "in_turn"]),
        default: Some(r#""auto""#),
        flag: None,
        doc: "How a model that is deployed takes the place of the one that is served: `beside` loads it while the other one \
              serves, `in_turn` lets the other one finish first, within `shutdown.grace`, while new requests wait. `auto`: \
              beside where memory allows.",
    },
    Key {
        path: "probation.seconds",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("120"),
        flag: None,
        doc: "How long a model that was deployed must serve until it is confirmed.",
    },
    Key {
        path: "probation.starts",
        kind: Kind::Integer { min: 1, max: 100 },
        default: Some("3"),
        flag: None,
        doc: "How often the daemon starts with a model that is not confirmed and that ended it each time before: with the next \
              start it goes back to the model before. A stop in order does not count, a power cut does.",
    },
    Key {
        path: "probation.probe",
        kind: Kind::Integer { min: 1, max: 3600 },
        default: Some("10"),
        flag: None,
        doc: "How often, in seconds, a model on probation has to answer a short request of the daemon's own. One that fails it \
              gives way to the model before.",
    },
    verify::RATE,
    verify::HOURS,
    Key {
        path: "registry.auth_file",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The file with the credentials for registries that models are pulled from: an `auth.json` as `skopeo login` and \
              `podman login` write it. Read at each pull; a pull that brings credentials of its own needs none. Readable by \
              the daemon's user alone.",
    },
    Key {
        path: "registry.plain_http",
        kind: Kind::Registries,
        default: Some("[]"),
        flag: None,
        doc: "Registries that are asked over plain HTTP, without encryption: everyone on the way can then read credentials and \
              models, though not alter models unseen. One on this machine needs no entry.",
    },
    Key {
        path: "registry.ca",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "Certificates in PEM of authorities that registries' certificates may come from, beside the system's.",
    },
    Key {
        path: "telemetry.dir",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "Folder for the history, and for what waits for the collector. Not set: `telemetry` in `state_dir` where the daemon keeps \
              its models there; with `bundle`, in memory, so that it ends with the daemon.",
    },
    Key {
        path: "telemetry.interval",
        kind: Kind::Integer { min: 1, max: 3600 },
        default: Some("60"),
        flag: None,
        doc: "Seconds that a record of the history stands for.",
    },
    Key {
        path: "telemetry.history_bytes",
        kind: Kind::Integer { min: 1 << 20, max: 1 << 40 },
        default: Some("50000000"),
        flag: None,
        doc: "Most bytes of disk that the history takes: when they are full, the oldest goes.",
    },
    Key {
        path: "telemetry.minutes",
        kind: Kind::Integer { min: 1, max: 3660 },
        default: Some("14"),
        flag: None,
        doc: "Days after which the records of an hour are put together to one.",
    },
    Key {
        path: "telemetry.hours",
        kind: Kind::Integer { min: 1, max: 3660 },
        default: Some("400"),
        flag: None,
        doc: "Days after which records are removed.",
    },
    Key {
        path: "telemetry.endpoint",
        kind: Kind::Url,
        default: None,
        flag: None,
        doc: "An OpenTelemetry collector that metrics and traces are sent to, by OTLP over gRPC. Not set: none. \
              (`OTEL_EXPORTER_OTLP_ENDPOINT` sets it too.)",
    },
    Key {
        path: "telemetry.export_interval",
        kind: Kind::Integer { min: 1, max: 3600 },
        default: None,
        flag: None,
        doc: "Seconds between two exports of metrics. Not set: with each record of the history. (`OTEL_METRIC_EXPORT_INTERVAL`, in \
              milliseconds, sets it too.)",
    },
    Key {
        path: "telemetry.protocol",
        kind: Kind::Choice(&["grpc"]),
        default: Some(r#""grpc""#),
        flag: None,
        doc: "How it is spoken with. (`OTEL_EXPORTER_OTLP_PROTOCOL` sets it too.)",
    },
    Key {
        path: "telemetry.headers",
        kind: Kind::Pairs,
        default: Some("[]"),
        flag: None,
        doc: "Headers that go with each export, such as `authorization=Bearer …`. (`OTEL_EXPORTER_OTLP_HEADERS` sets it too.)",
    },
    Key {
        path: "telemetry.timeout",
        kind: Kind::Integer { min: 1, max: 3600 },
        default: Some("10"),
        flag: None,
        doc: "Seconds that the collector may take for one export. (`OTEL_EXPORTER_OTLP_TIMEOUT`, in milliseconds, sets it too.)",
    },
    Key {
        path: "telemetry.ca",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The certificates in PEM of the authorities that the collector's certificate may come from. Not set: the system's. \
              (`OTEL_EXPORTER_OTLP_CERTIFICATE` sets it too.)",
    },
    Key {
        path: "telemetry.certificate",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "The certificate in PEM that the collector is shown. (`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` sets it too.)",
    },
    Key {
        path: "telemetry.key",
        kind: Kind::Path,
        default: None,
        flag: None,
        doc: "Its private key in PEM. (`OTEL_EXPORTER_OTLP_CLIENT_KEY` sets it too.)",
    },
    Key {
        path: "telemetry.outbox_bytes",
        kind: Kind::Integer { min: 1 << 16, max: 1 << 40 },
        default: Some("64000000"),
        flag: None,
        doc: "Most bytes of what waits for a collector that does not take it. When they are full, the oldest goes, which is counted \
              and said.",
    },
    Key {
        path: "telemetry.traces",
        kind: Kind::Integer { min: 0, max: 100 },
        default: Some("100"),
        flag: None,
        doc: "Of how many requests in a hundred the spans are sent, where the caller did not decide it. \
              (`OTEL_TRACES_SAMPLER` with `OTEL_TRACES_SAMPLER_ARG` sets it too.)",
    },
    Key {
        path: "telemetry.resource",
        kind: Kind::Pairs,
        default: Some("[]"),
        flag: None,
        doc: "What is told of this node with everything that is sent, such as `site=north`. (`OTEL_RESOURCE_ATTRIBUTES` sets it too.)",
    },
    Key {
        path: "telemetry.content",
        kind: Kind::Bool,
        default: Some("false"),
        flag: None,
        doc: "Put what is asked and answered into the spans, marked by `recurve.content`. Whoever reads the collector's data then \
              reads it. Metrics, the log and the history never have it.",
    },
    Key {
        path: "telemetry.prometheus",
        kind: Kind::Socket,
        default: None,
        flag: None,
        doc: "Address at which `/metrics` shows all metrics to Prometheus, over plain HTTP, such as `127.0.0.1:9464`. Whoever \
              reaches it may read them. Not set: none.",
    },
    Key {
        path: "log.level",
        kind: Kind::LogFilter,
        default: Some(r#""info,ort=warn""#),
        flag: Some("--log"),
        doc: "What is logged. Prompts and replies never are.",
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Some(r#""text""#),
        flag: None,
        doc: "On standard error: lines for people (in colour on a terminal), or one JSON object a line. Where that is systemd's \
              journal, lines go there with their fields instead.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_variables_follow_them() {
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
        assert_eq!(find("engine.prefill_budget").unwrap().variable(), "RECURVE_ENGINE__PREFILL_BUDGET");
    }
}
