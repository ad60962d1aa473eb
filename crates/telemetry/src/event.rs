//! What can happen to a node, for people and programs that read its history.

use recurve_proto::v1::Severity;

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in records.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub doc: &'static str,
}

const fn kind(name: &'static str, severity: Severity, doc: &'static str) -> Kind {
    Kind { name, severity, doc }
}

/// The daemon started after a stop in order, or for the first time.
pub const STARTED: Kind = kind("daemon.started", Severity::Info, "The daemon started.");
/// The daemon started, and had not stopped in order.
pub const RESTARTED: Kind = kind(
    "daemon.restarted",
    Severity::Warning,
    "The daemon started again without having stopped in order: it crashed or was killed, or the machine lost power \
     (attribute `cause`: `process`, `machine`).",
);
/// The daemon stopped in order.
pub const STOPPED: Kind = kind("daemon.stopped", Severity::Info, "The daemon stopped in order.");
/// A model is served that was not before.
pub const ACTIVATED: Kind = kind("model.activated", Severity::Info, "Another model was deployed and is served.");
/// A model on probation proved itself.
pub const CONFIRMED: Kind = kind("model.confirmed", Severity::Info, "The model served well for its time of probation.");
/// The daemon gave up a model.
pub const ROLLED_BACK: Kind =
    kind("model.rolled_back", Severity::Error, "A model failed, and the daemon went back to the one before.");
/// What is stored of a model is not what was written.
pub const MODEL_DAMAGED: Kind = kind(
    "model.damaged",
    Severity::Error,
    "A blob of a stored model is damaged; if that model was served, it no longer is (attributes `models`, `reason`).",
);
/// The record of the models had to be rebuilt.
pub const STORE_REBUILT: Kind = kind(
    "store.rebuilt",
    Severity::Error,
    "`models.json` was damaged or missing, and was rebuilt from the blobs and the audit (attribute `reason`); a damaged file is \
     kept beside it.",
);
/// The state directory is not there.
pub const STATE_GONE: Kind = kind(
    "state.gone",
    Severity::Error,
    "`state_dir` was removed or replaced while the daemon runs: what it keeps now ends with it.",
);
/// The state directory is there again.
pub const STATE_BACK: Kind = kind("state.back", Severity::Info, "`state_dir` is in its place again.");
/// An order was not carried out.
pub const NOT_CHANGED: Kind = kind(
    "model.not_changed",
    Severity::Warning,
    "A model was to be served and is not: it was refused or failed its tests.",
);
/// The hardware began to complain.
pub const HW_ALARM: Kind = kind(
    "hw.alarm",
    Severity::Warning,
    "The hardware began to complain (attribute `alarm`, as in `recurve.hw.alarm`).",
);
/// The hardware no longer complains.
pub const HW_CLEARED: Kind = kind("hw.cleared", Severity::Info, "The hardware no longer complains of it.");
/// The clock was set.
pub const CLOCK_SET: Kind =
    kind("clock.set", Severity::Info, "The wall clock jumped by more than a second (attribute `seconds`).");
/// A setting was changed at run time.
pub const CONFIGURED: Kind = kind("node.configured", Severity::Info, "A setting was changed while the daemon runs.");
/// The node takes no new requests.
pub const DRAINED: Kind = kind("node.drained", Severity::Info, "The node was told to take no new requests.");
/// The node takes requests again.
pub const RESUMED: Kind = kind("node.resumed", Severity::Info, "The node was told to take requests again.");
/// The collector does not take what is sent.
pub const COLLECTOR_AWAY: Kind = kind(
    "telemetry.collector_away",
    Severity::Warning,
    "The collector does not take what is sent; it is kept on the disk.",
);
/// The collector has all again.
pub const COLLECTOR_BACK: Kind =
    kind("telemetry.collector_back", Severity::Info, "The collector has taken all that was kept for it.");
/// Telemetry was lost for the collector.
pub const DROPPED: Kind =
    kind("telemetry.dropped", Severity::Warning, "Telemetry was dropped that the collector never had.");
/// The history could not be read.
pub const HISTORY_LOST: Kind = kind(
    "telemetry.history_lost",
    Severity::Error,
    "The history was damaged and a new one was begun; the damaged file is kept beside it.",
);
/// The log has an ERROR.
pub const LOGGED_ERROR: Kind = kind("log.error", Severity::Error, "The log has a line of level ERROR.");
/// The log has a WARN.
pub const LOGGED_WARNING: Kind =
    kind("log.warning", Severity::Warning, "The log has a line of level WARN; the same one at most once an hour.");

/// All kinds.
pub const KINDS: &[Kind] = &[
    STARTED,
    RESTARTED,
    STOPPED,
    ACTIVATED,
    CONFIRMED,
    ROLLED_BACK,
    MODEL_DAMAGED,
    STORE_REBUILT,
    STATE_GONE,
    STATE_BACK,
    NOT_CHANGED,
    HW_ALARM,
    HW_CLEARED,
    CLOCK_SET,
    CONFIGURED,
    DRAINED,
    RESUMED,
    COLLECTOR_AWAY,
    COLLECTOR_BACK,
    DROPPED,
    HISTORY_LOST,
    LOGGED_ERROR,
    LOGGED_WARNING,
];
