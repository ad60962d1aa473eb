//! What `check-config` shows: each value with its source, and every problem.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing set it.
    Default,
    /// Sockets that systemd holds.
    Sockets,
    /// This configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Sockets => f.write_str("systemd's sockets"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// The key, where the problem has one.
    pub key: Option<String>,
    /// The value that is wrong, where there is one.
    pub value: Option<Value>,
    /// Where the value came from.
    pub source: Source,
    /// What is wrong with it, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value} ({}): {}", self.source, self.message),
            (Some(key), None) => write!(f, "{key}: {}", self.message),
            (None, _) => write!(f, "{}: {}", self.source, self.message),
        }
    }
}

/// A key with the value in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Dotted path.
    pub key: &'static str,
    /// The value; null where it is not set.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

/// The settings in effect and what is wrong with them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the daemon would start with them.
    pub ok: bool,
    /// One for each key.
    pub values: Vec<Entry>,
    /// Where systemd listens for the daemon, which is served whatever `listen` says.
    pub sockets: Vec<String>,
    /// What is to be known beside them.
    pub notes: Vec<String>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

impl Report {
    /// For programs: one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people: one line for each key, then the problems.
    pub fn text(&self) -> String {
        let lines: Vec<(String, &Source)> = self
            .values
            .iter()
            .map(|entry| {
                let line = match &entry.value {
                    Value::Null => format!("# {} is not set", entry.key),
                    value => format!("{} = {value}", entry.key),
                };
                (line, &entry.source)
            })
            .collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (line, source) in lines {
            if line.starts_with('#') {
                let _ = writeln!(text, "{line}");
            } else {
                let _ = writeln!(text, "{line:width$}  # {source}");
            }
        }
        if !self.sockets.is_empty() {
            let _ = writeln!(text, "# recurved.socket: {}; served whatever `listen` says", self.sockets.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        if !self.problems.is_empty() {
            let _ = write!(text, "\n{}", problems(&self.problems));
        }
        text
    }
}

/// The problems, one a line.
pub fn problems(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "1 problem in the configuration:\n".to_owned(),
        n => format!("{n} problems in the configuration:\n"),
    };
    for problem in problems {
        let _ = writeln!(text, "  {}", problem.to_string().replace('\n', "\n    "));
    }
    text
}
