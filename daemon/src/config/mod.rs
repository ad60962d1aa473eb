//! The one place where the daemon reads files, flags and environment variables for its settings.
//!
//! Defaults < sockets that systemd holds < TOML file < `RECURVE_*` variables < flags. All problems are found and reported
//! together.

mod address;
mod args;
mod key;
mod keys;
mod layers;
mod man;
mod mistyped;
mod os_text;
mod otel;
mod read;
mod reference;
mod report;
mod settings;
mod telemetry;
mod template;
mod verify;

use std::path::{Path, PathBuf};

pub use address::{Address, Held};
pub(crate) use args::colours;
pub use args::{Cli, Command, Flags, Format};
pub use man::write as write_manual;
pub(crate) use read::log_filter;
pub use reference::page as reference_page;
pub use report::{Entry, Problem, Report, Source, problems};
pub use settings::{
    EngineSettings, KernelSetting, Limits, LogFormat, LogLevel, LogSettings, Provider, RegistrySettings, Settings,
    Switch, TlsSettings, TrustSettings,
};
pub use telemetry::{Collector, TelemetrySettings};
pub use template::template;
pub use verify::VerifySettings;

/// The configuration as it was found: the settings if nothing is wrong, and what there is to show.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, where nothing is wrong.
    pub settings: Option<Settings>,
    /// Each value with its source, and every problem.
    pub report: Report,
}

impl Loaded {
    /// The same, with something that is to be known beside it.
    #[must_use]
    pub fn noting(mut self, note: Option<String>) -> Self {
        self.report.notes.extend(note);
        self
    }

    /// The same, with sockets that cannot be served.
    #[must_use]
    pub fn refusing(mut self, sockets: &[String]) -> Self {
        if !sockets.is_empty() {
            self.settings = None;
            self.report.ok = false;
        }
        let problem =
            |message: &String| Problem { key: None, value: None, source: Source::Sockets, message: message.clone() };
        self.report.problems.extend(sockets.iter().map(problem));
        self
    }
}

/// Reads all sources of this process. `inherited`: where systemd listens for it, or is to.
pub fn load(flags: &Flags, inherited: &[Held]) -> Loaded {
    let file = flags.config.clone().or_else(|| {
        let default = PathBuf::from(args::DEFAULT_FILE);
        default.exists().then_some(default)
    });
    let variables: Vec<_> = variables().collect();
    load_from(flags, file.as_deref(), &variables, inherited)
}

/// Whether these flags name the configuration that the service reads.
pub fn is_of_service(flags: &Flags) -> bool {
    flags.config.as_deref().is_none_or(|file| is_same_file(file, Path::new(args::DEFAULT_FILE)))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The variables of the environment whose names are text. Values that are not UTF-8 are encoded.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, os_text::encode(&value))))
}

/// Whether there is such a key.
pub(crate) fn is_key(path: &str) -> bool {
    keys::find(path).is_some()
}

/// What is allowed for a key, in words.
pub(crate) fn allowed(path: &str) -> String {
    keys::find(path).map(|key| key.kind.allowed()).unwrap_or_default()
}

/// A whole number within the bounds of its key.
pub(crate) fn whole_number(path: &str, text: &str) -> Option<u64> {
    match keys::find(path)?.kind {
        key::Kind::Integer { min, max } => text.trim().parse().ok().filter(|number| (min..=max).contains(number)),
        _ => None,
    }
}

/// What holds where nothing is set.
#[cfg(test)]
pub(crate) fn defaults() -> Settings {
    let flags = <Cli as clap::Parser>::parse_from(["recurved"]).flags;
    let variables = [("RECURVE_BUNDLE".to_owned(), "/none".to_owned())];
    load_from(&flags, None, &variables, &[]).settings.expect("the defaults are right")
}

/// Reads the given sources.
fn load_from(flags: &Flags, file: Option<&Path>, variables: &[(String, String)], inherited: &[Held]) -> Loaded {
    let mut problems = layers::miscased(variables);
    let file = file.and_then(|path| layers::file(path).map_err(|problem| problems.push(*problem)).ok());
    let figment = layers::stack(inherited, file, variables, flags);
    let mut reader = read::Reader::new(figment, problems);
    let settings = Settings::read(&mut reader, inherited);
    let (values, problems) = reader.finish();
    let ok = problems.is_empty();
    let sockets = inherited.iter().map(|held| held.address.to_string()).collect();
    Loaded { settings: ok.then_some(settings), report: Report { ok, values, sockets, notes: Vec::new(), problems } }
}

#[cfg(test)]
mod tests;
