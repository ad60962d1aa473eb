//! The log: standard error, for people or as JSON. ERROR means that a person must act.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::config::{LogFormat, LogSettings};

/// Starts logging. Once in a process; later calls do nothing.
pub fn start(settings: &LogSettings) {
    let lines = match settings.format {
        LogFormat::Text => fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).boxed(),
    };
    // Fails only where a subscriber is set already, as in tests.
    let _ = registry().with(lines.with_filter(settings.level.clone())).try_init();
}
