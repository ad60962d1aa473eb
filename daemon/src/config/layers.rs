//! The sources of settings, each as a figment provider: defaults < sockets that systemd holds < file < environment < flags.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::address::Held;
use super::args::Flags;
use super::key::{Key, Kind, VARIABLE_PREFIX, variable};
use super::keys::{KEYS, find};
use super::os_text;
use super::otel;
use super::report::{Problem, Source};

/// Environment variables with the prefix that are no keys: the command line, `agent-cli`, the demo script and
/// the tests read them.
const NOT_KEYS: [&str; 13] = [
    "RECURVE_CONFIG",
    "RECURVE_ON",
    "RECURVE_FLEET",
    "RECURVE_TELEMETRY_STORE",
    "RECURVE_CA",
    "RECURVE_CERTIFICATE",
    "RECURVE_KEY",
    "RECURVE_BIN_DIR",
    "RECURVE_NODE_MODULES",
    "RECURVE_PYTHON",
    "RECURVE_ROTEL",
    "RECURVE_TOKENIZER",
    "RECURVE_UPDATE_PAGES",
];

/// One source of settings.
#[derive(Debug)]
pub(super) struct Layer {
    name: &'static str,
    file: Option<PathBuf>,
    data: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.name);
        match &self.file {
            Some(path) => metadata.source(path.as_path()),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.data.clone())]))
    }
}

const DEFAULT: &str = "default";
const SOCKETS: &str = "sockets";
const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAG: &str = "flag";
/// ONNX Runtime's own variable for its library; the file goes before it.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// All sources in their order.
pub(super) fn stack(inherited: &[Held], file: Option<Layer>, variables: &[(String, String)], given: &Flags) -> Figment {
    let mut figment = Figment::from(defaults()).merge(sockets(inherited)).merge(library(variables));
    for (name, path, value) in otel::settings(variables) {
        let mut data = Dict::new();
        insert(&mut data, path, value);
        figment = figment.merge(Layer { name, file: None, data });
    }
    if let Some(file) = file {
        figment = figment.merge(file);
    }
    figment.merge(environment(variables)).merge(flags(given))
}

/// Where the value at `path` came from.
pub(super) fn source(figment: &Figment, value: &Value, path: &str) -> Source {
    let Some(metadata) = figment.get_metadata(value.tag()) else {
        return Source::Default;
    };
    match metadata.name.as_ref() {
        SOCKETS => Source::Sockets,
        FILE => Source::File(metadata.source.as_ref().and_then(|s| s.file_path()).unwrap_or(Path::new("")).into()),
        ENVIRONMENT => Source::Environment(variable(path)),
        LIBRARY_VARIABLE => Source::Environment(LIBRARY_VARIABLE.into()),
        name if name.starts_with(otel::PREFIX) => Source::Environment(name.to_owned()),
        FLAG => Source::Flag(find(path).and_then(|key| key.flag).unwrap_or_default()),
        _ => Source::Default,
    }
}

fn defaults() -> Layer {
    let mut data = Dict::new();
    for key in KEYS {
        if let Some(value) = key.default.and_then(literal) {
            insert(&mut data, key.path, value);
        }
    }
    Layer { name: DEFAULT, file: None, data }
}

/// Where systemd listens for the daemon.
fn sockets(inherited: &[Held]) -> Layer {
    let mut data = Dict::new();
    if !inherited.is_empty() {
        let listen: Vec<Value> = inherited.iter().map(|held| Value::from(held.address.to_string())).collect();
        insert(&mut data, "listen", listen.into());
    }
    Layer { name: SOCKETS, file: None, data }
}

/// A TOML literal as a value.
fn literal(text: &str) -> Option<Value> {
    <Toml as Format>::from_str::<Dict>(&format!("value = {text}")).ok()?.remove("value")
}

/// Reads the configuration file.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub(super) fn file(path: &Path) -> Result<Layer, Box<Problem>> {
    let problem =
        |message: String| Box::new(Problem { key: None, value: None, source: Source::File(path.into()), message });
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let data = <Toml as Format>::from_str::<Dict>(&text)
        .map_err(|error| problem(format!("is not valid TOML: {}", error.to_string().trim_end())))?;
    Ok(Layer { name: FILE, file: Some(path.into()), data })
}

fn library(variables: &[(String, String)]) -> Layer {
    let mut data = Dict::new();
    if let Some((_, path)) = variables.iter().find(|(name, path)| name == LIBRARY_VARIABLE && !path.is_empty()) {
        insert(&mut data, "engine.library", path.as_str().into());
    }
    Layer { name: LIBRARY_VARIABLE, file: None, data }
}

/// The variables of the environment that are meant for us.
fn environment(variables: &[(String, String)]) -> Layer {
    let mut data = Dict::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        if NOT_KEYS.contains(&name.as_str()) {
            continue;
        }
        let path = rest.to_lowercase().replace("__", ".");
        let value = from_text(find(&path), text);
        insert(&mut data, &path, value);
    }
    Layer { name: ENVIRONMENT, file: None, data }
}

/// The text of an environment variable as the kind of value that its key has.
fn from_text(key: Option<&Key>, text: &str) -> Value {
    match key.map(|key| key.kind) {
        Some(Kind::Bool | Kind::Integer { .. }) => text.trim().parse::<Value>().unwrap_or_else(|never| match never {}),
        Some(Kind::Addresses | Kind::Registries | Kind::Pairs) => list(text).into(),
        _ => text.into(),
    }
}

/// The items between commas.
fn list(text: &str) -> Vec<Value> {
    if os_text::is_encoded(text) {
        let text = os_text::decode(text);
        let items = text.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
        return items.map(|item| os_text::encode(OsStr::from_bytes(item)).into()).collect();
    }
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()
}

/// Variables that differ from a key's variable by capital and small letters alone. Each is a problem: nothing reads it.
pub(super) fn miscased(variables: &[(String, String)]) -> Vec<Problem> {
    let meant = |name: &str| {
        let rest = name.to_uppercase().strip_prefix(VARIABLE_PREFIX)?.to_lowercase().replace("__", ".");
        find(&rest).map(Key::variable).filter(|right| right != name && !name.starts_with(VARIABLE_PREFIX))
    };
    let problem = |(name, _): &(String, String)| {
        let message = format!("unknown variable; did you mean {}?", meant(name)?);
        Some(Problem { key: None, value: None, source: Source::Environment(name.clone()), message })
    };
    variables.iter().filter_map(problem).collect()
}

/// The flags that were given.
fn flags(flags: &Flags) -> Layer {
    let mut data = Dict::new();
    let mut set = |path: &str, value: Option<Value>| {
        if let Some(value) = value {
            insert(&mut data, path, value);
        }
    };
    let text = |path: &PathBuf| Value::from(os_text::encode(path.as_os_str()));
    set("bundle", flags.bundle.as_ref().map(text));
    set("state_dir", flags.state_dir.as_ref().map(text));
    set("log.level", flags.log.clone().map(Value::from));
    set("insecure", flags.insecure.then(|| Value::from(true)));
    let listen: Vec<Value> = flags.listen.iter().map(|address| Value::from(os_text::encode(address))).collect();
    set("listen", (!listen.is_empty()).then(|| listen.into()));
    Layer { name: FLAG, file: None, data }
}

/// Puts `value` at the dotted `path`, over whatever was there.
fn insert(data: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            data.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let mut inner = match data.remove(head) {
                Some(Value::Dict(_, inner)) => inner,
                _ => Dict::new(),
            };
            insert(&mut inner, rest, value);
            data.insert(head.to_owned(), Value::from(inner));
        }
    }
}
