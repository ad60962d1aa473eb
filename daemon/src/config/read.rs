//! Takes the values out of the sources one by one, so that one wrong value does not hide the next.

use std::net::SocketAddr;
use std::path::PathBuf;

use figment::Figment;
use figment::value::{Dict, Value};
use recurve_registry::Repository;
use serde_json::Value as Json;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::address::Address;
use super::key::Kind;
use super::keys::{KEYS, find};
use super::layers;
use super::mistyped;
use super::os_text;
use super::report::{Entry, Problem, Source};
use super::settings::LogLevel;

/// Reads values by key and collects what is wrong with them.
pub(super) struct Reader {
    figment: Figment,
    data: Dict,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Reads from these sources, and reports every key in them that does not exist.
    pub(super) fn new(figment: Figment, problems: Vec<Problem>) -> Self {
        let data = figment.extract::<Dict>().unwrap_or_default();
        let mut reader = Self { figment, data, entries: Vec::new(), problems };
        reader.report_unknown();
        reader
    }

    /// `true` or `false`; `false` where the value is wrong.
    pub(super) fn bool(&mut self, path: &str) -> bool {
        self.take(path, |_, value| value.to_bool().ok_or_else(String::new)).unwrap_or_default()
    }

    /// A whole number within the bounds of its key, if it is set.
    pub(super) fn integer(&mut self, path: &str) -> Option<u64> {
        self.take(path, |kind, value| {
            let Kind::Integer { min, max } = kind else { return Err(String::new()) };
            let number = value.to_u128().or_else(|| value.to_i128().and_then(|n| u128::try_from(n).ok()));
            number.and_then(|n| u64::try_from(n).ok()).filter(|n| (min..=max).contains(n)).ok_or_else(String::new)
        })
    }

    /// The same as `usize`; 0 where it is not set or wrong.
    pub(super) fn count(&mut self, path: &str) -> usize {
        self.integer(path).and_then(|n| usize::try_from(n).ok()).unwrap_or_default()
    }

    /// A path, if it is set.
    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        self.take(path, |_, value| match value.as_str() {
            Some("") => Err("must not be empty".into()),
            Some(text) if text.contains('\0') && !os_text::is_encoded(text) => Err("must not hold a zero byte".into()),
            Some(text) => Ok(PathBuf::from(os_text::decode(text))),
            None => Err(String::new()),
        })
    }

    /// One of the words of its key; the first where it is wrong.
    pub(super) fn choice(&mut self, path: &str) -> &'static str {
        self.take(path, |kind, value| {
            let Kind::Choice(words) = kind else { return Err(String::new()) };
            words.iter().copied().find(|word| value.as_str() == Some(word)).ok_or_else(String::new)
        })
        .unwrap_or_default()
    }

    /// A log filter.
    pub(super) fn log_level(&mut self, path: &str) -> LogLevel {
        let level = self.take(path, |_, value| {
            let text = value.as_str().unwrap_or_default();
            log_filter(text).map(|filter| LogLevel { text: text.to_owned(), filter }).ok_or_else(String::new)
        });
        level.unwrap_or_else(|| LogLevel { text: String::new(), filter: Targets::new() })
    }

    /// A list of different addresses, at least one.
    pub(super) fn addresses(&mut self, path: &str) -> Vec<Address> {
        self.take(path, |_, value| {
            let items: Vec<&str> = match value {
                Value::Array(_, items) => {
                    items.iter().map(|v| v.as_str().ok_or_else(String::new)).collect::<Result<_, _>>()?
                }
                _ => vec![value.as_str().ok_or_else(String::new)?],
            };
            let mut addresses = Vec::new();
            for item in items {
                let listed = Address::listed(os_text::decode(item));
                for address in listed.map_err(|reason| format!("{:?} is {reason}", os_text::shown(item)))? {
                    if addresses.contains(&address) && !matches!(address, Address::Tcp(a) if a.port() == 0) {
                        return Err(format!("{address} is given twice"));
                    }
                    addresses.push(address);
                }
            }
            if addresses.is_empty() { Err("at least one address is needed".into()) } else { Ok(addresses) }
        })
        .unwrap_or_default()
    }

    /// A list of registries, perhaps empty.
    pub(super) fn registries(&mut self, path: &str) -> Vec<String> {
        self.take(path, |_, value| {
            let items = value.as_array().ok_or_else(String::new)?;
            let registry = |item: &Value| {
                let text = item.as_str().ok_or_else(String::new)?.to_ascii_lowercase();
                // Any repository will do.
                match Repository::new(&text, "a") {
                    Ok(_) => Ok(text),
                    Err(_) => Err(format!("{text:?} is no registry")),
                }
            };
            items.iter().map(registry).collect()
        })
        .unwrap_or_default()
    }

    /// A URL with `http` or `https`, if it is set.
    pub(super) fn url(&mut self, path: &str) -> Option<String> {
        self.take(path, |_, value| {
            let text = value.as_str().ok_or_else(String::new)?;
            match url::Url::parse(text) {
                Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                    Err("must hold no password: give it in telemetry.headers".to_owned())
                }
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
                _ => Err(String::new()),
            }
        })
    }

    /// An IP address and a port, if it is set.
    pub(super) fn socket(&mut self, path: &str) -> Option<SocketAddr> {
        self.take(path, |_, value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(String::new))
    }

    /// A list of `NAME=VALUE`, perhaps empty.
    pub(super) fn pairs(&mut self, path: &str) -> Vec<(String, String)> {
        self.take(path, |_, value| {
            let items = value.as_array().ok_or_else(String::new)?;
            let pair = |item: &Value| {
                let text = item.as_str().ok_or_else(String::new)?;
                match text.split_once('=') {
                    Some((name, value)) if is_name(name.trim()) => {
                        Ok((name.trim().to_owned(), value.trim().to_owned()))
                    }
                    _ => Err(format!("{text:?} is no NAME=VALUE")),
                }
            };
            items.iter().map(pair).collect()
        })
        .unwrap_or_default()
    }

    /// Reports a value that is wrong only beside others.
    pub(super) fn reject(&mut self, path: &str, message: impl Into<String>) {
        let entry = self.entries.iter().find(|entry| entry.key == path);
        let value = entry.map(|entry| entry.value.clone()).filter(|value| !value.is_null());
        let source = self.source(path);
        self.problems.push(Problem { key: Some(path.into()), value, source, message: message.into() });
    }

    /// Reports what is wrong with sockets that systemd holds.
    pub(super) fn reject_sockets(&mut self, message: String) {
        self.problems.push(Problem { key: None, value: None, source: Source::Sockets, message });
    }

    /// Where the value of a key that was read came from.
    pub(super) fn source(&self, path: &str) -> Source {
        let entry = self.entries.iter().find(|entry| entry.key == path);
        entry.map_or(Source::Default, |entry| entry.source.clone())
    }

    /// Every key with its value, and every problem.
    pub(super) fn finish(self) -> (Vec<Entry>, Vec<Problem>) {
        (self.entries, self.problems)
    }

    /// The value of a key through `convert`, whose error says what is wrong; empty: only what is allowed is told.
    fn take<T>(&mut self, path: &str, convert: impl Fn(Kind, &Value) -> Result<T, String>) -> Option<T> {
        let key = find(path)?;
        let Some(value) = lookup(&self.data, path) else {
            self.entries.push(Entry { key: key.path, value: Json::Null, source: Source::Default });
            return None;
        };
        let source = layers::source(&self.figment, value, path);
        let shown = if key.path == SECRET { masked(value) } else { json(value) };
        let result = convert(key.kind, value);
        self.entries.push(Entry { key: key.path, value: shown.clone(), source: source.clone() });
        match result {
            Ok(converted) => Some(converted),
            Err(reason) => {
                let allowed = key.kind.allowed();
                let message = if reason.is_empty() {
                    format!("allowed: {allowed}")
                } else {
                    format!("{reason}; allowed: {allowed}")
                };
                self.problems.push(Problem { key: Some(path.into()), value: Some(shown), source, message });
                None
            }
        }
    }

    fn report_unknown(&mut self) {
        let mut unknown = Vec::new();
        walk(&self.data, "", &mut unknown);
        for (path, value) in unknown {
            let source = layers::source(&self.figment, &value, &path);
            if let Source::Environment(_) = source {
                // The name that was typed says more than the path that was made of it.
                let message = mistyped::variable(&path);
                self.problems.push(Problem { key: None, value: None, source, message });
                continue;
            }
            let message = match &value {
                Value::Dict(..) => mistyped::section(&path, &sections()),
                _ if is_section(&path) => "is a section, not a key".to_owned(),
                _ => mistyped::key(&path),
            };
            self.problems.push(Problem { key: Some(path), value: Some(json(&value)), source, message });
        }
    }
}

/// Letters, digits and what stands between them in the names of headers and attributes.
fn is_name(name: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    !name.is_empty() && name.chars().all(within)
}

/// A level, or a list with at most one of them beside `TARGET=LEVEL`.
pub(crate) fn log_filter(text: &str) -> Option<Targets> {
    let (mut filter, mut default) = (Targets::new(), LevelFilter::OFF);
    for part in text.split(',').map(str::trim) {
        if !part.contains('=') {
            default = log_level(part)?;
        }
    }
    // Libraries that log every frame of a connection: a line that is sent to somebody would make more lines. Whoever wants them
    // names them.
    for target in ["h2", "hyper", "hyper_util"] {
        filter = filter.with_target(target, default.min(LevelFilter::INFO));
    }
    for part in text.split(',').map(str::trim) {
        filter = match part.split_once('=') {
            Some(("", _)) => return None,
            Some((target, level)) => filter.with_target(target, log_level(level)?),
            None => filter.with_default(log_level(part)?),
        };
    }
    Some(filter)
}

fn log_level(word: &str) -> Option<LevelFilter> {
    // The filter itself would also take numbers.
    word.parse().ok().filter(|_| word.bytes().all(|byte| byte.is_ascii_alphabetic()) && !word.is_empty())
}

/// The names before the dot of keys, in their order.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().filter_map(|key| Some(key.path.rsplit_once('.')?.0)).collect();
    sections.dedup();
    sections
}

fn is_section(path: &str) -> bool {
    sections().contains(&path)
}

/// The leaves that are no keys and the empty sections that hold none, with their paths.
fn walk(data: &Dict, prefix: &str, unknown: &mut Vec<(String, Value)>) {
    for (name, value) in data {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if find(&path).is_some() {
            continue;
        }
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => walk(inner, &path, unknown),
            Value::Dict(..) if is_section(&path) => {}
            _ => unknown.push((path, value.clone())),
        }
    }
}

fn lookup<'a>(data: &'a Dict, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => data.get(path),
        Some((head, rest)) => match data.get(head) {
            Some(Value::Dict(_, inner)) => lookup(inner, rest),
            _ => None,
        },
    }
}

/// The key whose values are shown to nobody.
const SECRET: &str = "telemetry.headers";

/// Names without their values.
fn masked(value: &Value) -> Json {
    let name = |item: &Value| {
        let text = item.as_str().unwrap_or_default();
        text.split_once('=').map_or_else(|| "…".to_owned(), |(name, _)| format!("{name}=…"))
    };
    Json::Array(value.as_array().unwrap_or_default().iter().map(|item| Json::from(name(item))).collect())
}

fn json(value: &Value) -> Json {
    match value {
        Value::Dict(_, inner) => inner.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        Value::Array(_, items) => items.iter().map(json).collect(),
        Value::String(_, text) => os_text::shown(text).into(),
        other => serde_json::to_value(other).unwrap_or(Json::Null),
    }
}
