//! What an operator may look at and change while the node runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{self, Entry, Settings};
use crate::grpc::Tls;
use crate::log::Log;
use crate::telemetry::Telemetry;

/// The settings that may change.
const LEVEL: &str = "log.level";
const INTERVAL: &str = "telemetry.interval";
const TRACES: &str = "telemetry.traces";

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// What there is to look at and to change.
#[derive(Debug, Clone)]
pub struct Operations {
    /// As they were at the start.
    pub settings: Arc<Settings>,
    /// Every key with the value that it had at the start.
    pub values: Arc<[Entry]>,
    /// Where the node listens.
    pub listen: Vec<String>,
    /// The log.
    pub log: Log,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// What encrypts connections, if something does.
    pub tls: Option<Tls>,
}

impl Operations {
    /// The settings that may change, as they are now.
    pub fn now(&self) -> BTreeMap<String, String> {
        let now = [
            (LEVEL, self.log.level()),
            (INTERVAL, self.telemetry.interval().as_secs().to_string()),
            (TRACES, self.telemetry.traces().to_string()),
        ];
        now.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Changes all of these settings, or none. They hold until the next start.
    ///
    /// # Errors
    /// Every key that is wrong, and how.
    pub fn configure(&self, wanted: &BTreeMap<String, String>) -> Result<Vec<Change>, Vec<(String, String)>> {
        let may = || format!("those that may change while the node runs are {LEVEL}, {INTERVAL} and {TRACES}");
        if wanted.is_empty() {
            return Err(vec![("settings".to_owned(), format!("is empty; {}", may()))]);
        }
        // First all of it is read,
        let mut changes: Vec<(&String, &String, Checked)> = Vec::new();
        let mut wrong = Vec::new();
        for (key, value) in wanted {
            let checked = match key.as_str() {
                LEVEL => config::log_filter(value).map(|filter| Checked::Level(Box::new(filter))),
                INTERVAL => config::whole_number(key, value).map(Checked::Interval),
                TRACES => config::whole_number(key, value).map(Checked::Traces),
                _ => {
                    let problem = match config::is_key(key) {
                        true => "needs a restart: set it in the configuration",
                        false => "is no key of the configuration",
                    };
                    wrong.push((key.clone(), format!("{problem}; {}", may())));
                    continue;
                }
            };
            match checked {
                Some(checked) => changes.push((key, value, checked)),
                None => wrong.push((key.clone(), format!("is {value:?}; allowed: {}", config::allowed(key)))),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        // then all of it is done.
        Ok(changes.into_iter().map(|(key, value, checked)| self.change(key, value, checked)).collect())
    }

    fn change(&self, key: &str, value: &str, checked: Checked) -> Change {
        let before = match checked {
            Checked::Level(filter) => self.log.set_level(value, &filter),
            Checked::Interval(seconds) => {
                self.telemetry.set_interval(std::time::Duration::from_secs(seconds)).as_secs().to_string()
            }
            Checked::Traces(percent) => self.telemetry.set_traces(percent).to_string(),
        };
        Change { key: key.to_owned(), before, after: value.to_owned() }
    }
}

enum Checked {
    Level(Box<tracing_subscriber::filter::Targets>),
    Interval(u64),
    Traces(u64),
}
