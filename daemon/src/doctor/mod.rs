//! Whether this machine can serve, and what to do where it cannot: one check a concern, each a function over what it is given, so
//! that recorded trees of files can stand for a machine.
//!
//! The daemon checks itself: it alone has the configuration, ONNX Runtime, and the limits that it really runs under.

mod clock;
mod configuration;
mod disk;
mod library;
mod mdns;
mod memory;
mod permissions;
mod ports;
mod processor;
mod report;
mod stored;
mod systemd;
mod thermal;
mod tls;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use recurve_bundle::Bundle;
use serde::Serialize;

use crate::config::{Held, Loaded, Settings};
use crate::deployment;
use crate::store::Store;
use crate::system;
use crate::system::socket_unit::SocketUnit;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be looked at, or does not apply here.
    Skipped,
    /// Nothing is wrong, and something could be better.
    Note,
    /// It serves, and something will go wrong or goes slowly.
    Warning,
    /// It does not serve, or will not.
    Problem,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: `cpu`, `memory`, `disk`, `clock`, …
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, with its figures.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), advice: advice.into() }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found, "")
    }

    fn skipped(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, found, "")
    }

    /// Something that only other users may look at.
    fn hidden(check: &'static str, what: &str) -> Self {
        let found = format!("{what} cannot be looked at by this user");
        Self::new(check, Verdict::Skipped, found, "run `sudo agent-cli doctor`")
    }
}

/// What a running daemon knows of itself.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// Where it listens.
    pub listen: Vec<String>,
    /// The version of ONNX Runtime that it loaded; none before it did.
    pub onnxruntime: Option<String>,
    /// Whether a model is in memory.
    pub model: bool,
    /// Alarms of the daemon's own, and what is wrong.
    pub alarms: Vec<(&'static str, String)>,
}

/// The model that is served, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// Its name.
    pub(crate) name: String,
    /// Bytes that it takes beside its weights.
    pub(crate) needed: u64,
    /// Bytes of its weights.
    pub(crate) weights: u64,
}

/// Why it cannot be told which model it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Untold {
    reason: String,
    /// The system did not let this user read.
    denied: bool,
}

impl Untold {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
        let denied = causes.any(|cause| {
            cause.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::PermissionDenied)
        });
        Self { reason: error.to_string(), denied }
    }
}

/// What is looked at.
#[derive(Debug)]
struct Patient<'a> {
    /// Where the kernel's files lie.
    root: &'a Path,
    settings: &'a Settings,
    /// The model, or why it cannot be told.
    model: Result<Option<Model>, Untold>,
    /// What the daemon that asks itself knows; none where another process looks.
    serving: Option<&'a Serving>,
    /// The sockets that systemd holds for the daemon, or will when they are started: they are not the daemon's to make.
    held: &'a [Held],
    /// Whether this process is of a user who is neither root nor the service's: what is not shown to such a one may be right.
    stranger: bool,
    /// Bytes that this process may still take.
    available: Option<u64>,
    now: SystemTime,
}

impl Patient<'_> {
    /// The text of a file, without what surrounds it.
    fn text(&self, below: &str) -> Option<String> {
        read(self.root, below)
    }

    fn exists(&self, below: &str) -> bool {
        self.root.join(below).exists()
    }
}

fn read(root: &Path, below: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(below)).ok()?.trim().to_owned())
}

/// Looks at this machine with these settings. `held`: where systemd listens for the daemon, as far as another process looks. Blocks.
pub fn examine(settings: &Settings, serving: Option<&Serving>, held: &[Held]) -> Vec<Finding> {
    let patient = Patient {
        root: Path::new("/"),
        settings,
        model: model(settings),
        serving,
        held,
        stranger: serving.is_none() && permissions::stranger(Path::new("/"), &settings.state_dir),
        available: system::memory::available(),
        now: SystemTime::now(),
    };
    all(&patient)
}

/// Looks at this machine with a configuration that may be wrong. `unit`: where systemd listens for the daemon. Blocks.
pub fn examine_loaded(loaded: &Loaded, unit: &SocketUnit) -> Vec<Finding> {
    let mut findings = configuration::check(&loaded.report);
    findings.extend(unit.trouble.as_ref().map(systemd::of_socket_unit));
    match &loaded.settings {
        Some(settings) => findings.extend(examine(settings, None, &unit.held)),
        None => findings.push(Finding::skipped("other checks", "they need a configuration that is right")),
    }
    findings
}

fn all(patient: &Patient<'_>) -> Vec<Finding> {
    [
        processor::check,
        memory::check,
        disk::check,
        stored::check,
        clock::check,
        library::check,
        permissions::check,
        ports::check,
        mdns::check,
        tls::check,
        thermal::check,
        systemd::check,
    ]
    .iter()
    .flat_map(|check| check(patient))
    .collect()
}

/// The findings for people.
pub fn text(findings: &[Finding]) -> String {
    report::text(findings)
}

/// The findings for programs: one JSON object.
pub fn json(findings: &[Finding]) -> String {
    report::json(findings)
}

/// Whether something is a problem.
pub fn ill(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Problem)
}

/// The configured bundle, or the store's active model.
fn model(settings: &Settings) -> Result<Option<Model>, Untold> {
    let bundle = match &settings.bundle {
        Some(dir) => Some(Bundle::open(dir).map_err(|error| Untold::of(&error))?),
        None => Store::glance(&settings.state_dir).map_err(|error| Untold::of(&error))?,
    };
    Ok(bundle.map(|bundle| Model {
        name: bundle.info().name.clone(),
        needed: deployment::needed(bundle.info(), bundle.manifest(), &settings.engine),
        weights: bundle.shards().map(|(_, bytes)| bytes).sum(),
    }))
}

/// The folder, or the nearest one above it that there is.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    const GB: u64 = 1_000_000_000;
    match bytes {
        GB.. => format!("{}.{} GB", bytes / GB, bytes % GB / (GB / 10)),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests;
