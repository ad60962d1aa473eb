//! The inventory: which devices there are, as `fleet.toml` says it.
//!
//! Everything that is wrong with the file is told together, each with its line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{ImDocument, Item, TableLike};

use super::near;
use crate::exit::Failure;
use crate::target::{self, CertificateFiles, Target};

/// Largest file that is read: hundreds of bytes for each of some thousand devices.
const LARGEST: u64 = 8 << 20;
/// Longest name, label and value.
pub(super) const LONGEST: usize = 63;

/// The devices, in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Inventory {
    /// The file.
    pub(crate) path: PathBuf,
    /// No two have the same name.
    pub(crate) devices: Vec<Device>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// What it is called.
    pub(crate) name: String,
    /// Where its daemon listens.
    pub(crate) target: Target,
    /// What selectors ask for.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its own TLS, or the file's; none where neither says it.
    pub(crate) tls: Option<CertificateFiles>,
}

/// Something that is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    line: usize,
    /// Such as `device "gw-1": address`.
    field: String,
    /// The value, what is wrong with it, what is allowed.
    words: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} {}", self.line, self.field, self.words)
    }
}

impl Inventory {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = text(path)?.ok_or_else(|| {
            Failure::Usage(format!(
                "there is no inventory at {}: `agent-cli devices add NAME ADDRESS` begins one, --fleet names another",
                path.display()
            ))
        })?;
        Self::parse(path, &text)
    }

    /// Understands the file's text, or tells everything that is wrong with it.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let wrong = |problems: &[Problem]| {
            let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            let things = if problems.len() == 1 { "one thing is" } else { "these things are" };
            Failure::Usage(format!("{things} wrong in the inventory {}:{}", path.display(), lines.concat()))
        };
        let document = ImDocument::parse(text).map_err(|error| {
            let line = line(text, error.span());
            wrong(&[Problem { line, field: "this".to_owned(), words: format!("is not TOML: {}", error.message()) }])
        })?;
        let mut reader = Reader { text, folder, problems: Vec::new() };
        let devices = reader.document(document.as_table());
        if reader.problems.is_empty() {
            return Ok(Self { path: path.to_owned(), devices });
        }
        reader.problems.sort_by_key(|problem| problem.line);
        Err(wrong(&reader.problems))
    }

    /// The device with this name.
    pub(crate) fn device(&self, name: &str) -> Result<&Device, Failure> {
        self.devices.iter().find(|device| device.name == name).ok_or_else(|| {
            let names = self.devices.iter().map(|device| device.name.as_str());
            let near = near::told(name, names, "the inventory has");
            Failure::Usage(format!("no device of {} is called {name:?}{near}", self.path.display()))
        })
    }
}

/// The file's text; none where there is no file.
pub(super) fn text(path: &Path) -> Result<Option<String>, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot read {}: {error}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > LARGEST => {
            let words = format!("{} has {} bytes; at most {LARGEST} are read", path.display(), metadata.len());
            return Err(Failure::Usage(words));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

/// What is wrong with a name, a label or a label's value.
pub(crate) fn check_word(word: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = word.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && word.len() <= LONGEST && word.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{word:?} is not allowed: 1 to {LONGEST} letters, digits, `-`, `_` and `.`, the first one a letter or digit"
    ))
}

/// What is wrong with a device's name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    check_word(name)?;
    if matches!(name, "all" | "in" | "not") { Err(format!("{name:?} means something in selectors")) } else { Ok(()) }
}

fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The three files as they are written; each may be inherited.
#[derive(Debug, Clone, Default)]
struct Tls {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn wrong(&mut self, span: Option<Range<usize>>, field: impl Into<String>, words: impl Into<String>) {
        self.problems.push(Problem { line: line(self.text, span), field: field.into(), words: words.into() });
    }

    fn document(&mut self, table: &toml_edit::Table) -> Vec<Device> {
        self.unknown(table, "", &["tls", "device"]);
        let defaults = match table.get("tls") {
            Some(item) => self.tls(item, "tls", Tls::default()),
            None => Tls::default(),
        };
        self.whole(&defaults, table.get("tls").and_then(Item::span), "tls");
        let mut devices = Vec::new();
        let mut names = HashMap::new();
        let mut addresses = BTreeMap::new();
        for (number, (entry, span)) in self.entries(table).into_iter().enumerate() {
            let Some(device) = self.device(entry, span.clone(), number + 1, &defaults) else { continue };
            let at = line(self.text, span.clone());
            let field = format!("device {:?}:", device.name);
            if let Some(first) = names.insert(device.name.clone(), at) {
                self.wrong(span.clone(), &field, format!("has the name of the one on line {first}"));
            }
            if let Some((name, first)) = addresses.insert(device.target.clone(), (device.name.clone(), at)) {
                let target = &device.target;
                self.wrong(span, field, format!("has the address {target} of {name:?} on line {first}"));
            }
            devices.push(device);
        }
        devices
    }

    /// The tables `[[device]]`, or those of an array `device = [{…}]`, each with where it stands.
    fn entries<'t>(&mut self, table: &'t toml_edit::Table) -> Vec<(&'t dyn TableLike, Option<Range<usize>>)> {
        match table.get("device") {
            None => Vec::new(),
            Some(Item::ArrayOfTables(tables)) => {
                tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect()
            }
            Some(Item::Value(toml_edit::Value::Array(array))) => {
                let mut entries = Vec::new();
                for value in array {
                    match value.as_inline_table() {
                        Some(table) => entries.push((table as &dyn TableLike, value.span())),
                        None => {
                            self.wrong(value.span(), "device", "holds something that is no table: write [[device]]")
                        }
                    }
                }
                entries
            }
            Some(other) => {
                self.wrong(other.span(), "device", "must be a list of tables: write [[device]]");
                Vec::new()
            }
        }
    }

    fn device(
        &mut self,
        table: &dyn TableLike,
        span: Option<Range<usize>>,
        number: usize,
        defaults: &Tls,
    ) -> Option<Device> {
        let name = self.text_of(table, "name", &format!("device {number}: name"));
        let called = name.as_ref().map_or_else(|| format!("device {number}:"), |(name, _)| format!("device {name:?}:"));
        self.unknown(table, &format!("{called} "), &["name", "address", "labels", "tls"]);
        match &name {
            None if !table.contains_key("name") => self.wrong(span.clone(), &called, "has no name"),
            None => {}
            Some((name, span)) => {
                if let Err(words) = check_name(name) {
                    self.wrong(span.clone(), format!("device {number}: name"), words);
                }
            }
        }
        let field = format!("{called} address");
        let address = self.text_of(table, "address", &field);
        if address.is_none() && !table.contains_key("address") {
            self.wrong(span.clone(), &called, "has no address: write host:port or unix:/path");
        }
        let target = address.and_then(|(address, span)| match target::parse(&address) {
            Ok(target) => Some(target),
            Err(words) => {
                let words = format!("{address:?} {words}; allowed: host:port or unix:/path");
                self.wrong(span, &field, words);
                None
            }
        });
        let labels = table.get("labels").map(|item| self.labels(item, &called)).unwrap_or_default();
        let tls = match table.get("tls") {
            Some(item) => {
                let own = self.tls(item, &format!("{called} tls"), defaults.clone());
                self.whole(&own, item.span().or(span), &format!("{called} tls"));
                own
            }
            None => defaults.clone(),
        };
        let own = tls.certificate.zip(tls.key);
        let tls = tls.ca.map(|ca| CertificateFiles { ca, own });
        Some(Device { name: name?.0, target: target?, labels, tls })
    }

    fn labels(&mut self, item: &Item, called: &str) -> BTreeMap<String, String> {
        let field = format!("{called} labels");
        let Some(table) = item.as_table_like() else {
            self.wrong(item.span(), field, "must be a table, such as {site = \"north\"}");
            return BTreeMap::new();
        };
        let mut labels = BTreeMap::new();
        for (key, _) in table.iter() {
            let span = table.key(key).and_then(toml_edit::Key::span);
            if let Err(words) = check_word(key) {
                self.wrong(span, &field, words);
                continue;
            }
            let field = format!("{field}.{key}");
            let Some((value, span)) = self.text_of(table, key, &field) else { continue };
            match check_word(&value) {
                Ok(()) => drop(labels.insert(key.to_owned(), value)),
                Err(words) => self.wrong(span, &field, words),
            }
        }
        labels
    }

    fn tls(&mut self, item: &Item, field: &str, inherited: Tls) -> Tls {
        let Some(table) = item.as_table_like() else {
            self.wrong(item.span(), field, "must be a table with ca, certificate and key");
            return inherited;
        };
        self.unknown(table, &format!("{field}."), &["ca", "certificate", "key"]);
        let mut file = |key: &str, inherited: Option<PathBuf>| match self.text_of(table, key, &format!("{field}.{key}"))
        {
            Some((path, _)) => Some(self.folder.join(path)),
            None => inherited,
        };
        Tls {
            ca: file("ca", inherited.ca),
            certificate: file("certificate", inherited.certificate),
            key: file("key", inherited.key),
        }
    }

    /// Names what lacks of three files, some of which are given.
    fn whole(&mut self, tls: &Tls, span: Option<Range<usize>>, field: &str) {
        match tls {
            Tls { certificate: Some(_), key: None, .. } => self.wrong(span, field, "has a certificate and no key"),
            Tls { certificate: None, key: Some(_), .. } => self.wrong(span, field, "has a key and no certificate"),
            Tls { ca: None, certificate: Some(_), .. } => {
                self.wrong(span, field, "has no ca, the authority that knows the daemon");
            }
            _ => {}
        }
    }

    /// A text that is not empty, and where it stands.
    fn text_of(&mut self, table: &dyn TableLike, key: &str, field: &str) -> Option<(String, Option<Range<usize>>)> {
        let item = table.get(key)?;
        match item.as_str() {
            Some("") => self.wrong(item.span(), field, "is empty"),
            Some(text) => return Some((text.to_owned(), item.span())),
            None => self.wrong(item.span(), field, format!("is {} and must be text in quotes", item.type_name())),
        }
        None
    }

    fn unknown(&mut self, table: &dyn TableLike, before: &str, allowed: &[&str]) {
        let known: BTreeSet<_> = allowed.iter().copied().collect();
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(key)) {
            let span = table.key(key).and_then(toml_edit::Key::span);
            let near = near::told(key, allowed.iter().copied(), "allowed are");
            self.wrong(span, format!("{before}{key}"), format!("is no key of this table{near}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Device>, String> {
        match Inventory::parse(Path::new("/etc/fleet/fleet.toml"), text) {
            Ok(inventory) => Ok(inventory.devices),
            Err(Failure::Usage(words)) => Err(words),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn devices_have_the_tls_of_the_file_or_their_own() {
        let devices = parse(
            r#"
            [tls]
            ca = "fleet.pem"
            certificate = "/keys/me.pem"
            key = "me-key.pem"

            [[device]]
            name = "gw-1"
            address = "gw-1.lan:9090"
            labels = {site = "north", role = "canary"}

            [[device]]
            name = "gw-2"
            address = "unix:/run/x.sock"
            tls = {ca = "other.pem"}
            [device.labels]
            site = "south"
            "#,
        )
        .unwrap();
        let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["gw-1", "gw-2"]);
        let files = |ca: &str| CertificateFiles {
            ca: ca.into(),
            own: Some(("/keys/me.pem".into(), "/etc/fleet/me-key.pem".into())),
        };
        assert_eq!(devices[0].tls, Some(files("/etc/fleet/fleet.pem")));
        assert_eq!(devices[1].tls, Some(files("/etc/fleet/other.pem")));
        assert_eq!(devices[1].labels, BTreeMap::from([("site".to_owned(), "south".to_owned())]));
        assert_eq!(devices[0].target, Target::Tcp { host: "gw-1.lan".to_owned(), port: 9090 });
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("device = [{name = 'a', address = 'a:1'}]").unwrap().len(), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_line() {
        let words = parse(
            r#"[tls]
certificate = "me.pem"
cert = "x"

[[device]]
name = "gw 1"
address = "gw-1"

[[device]]
name = "gw-2"
address = "gw-2:9090"
lables = {site = "north"}

[[device]]
name = "gw-2"
address = "gw-2:9090"
labels = {site = 3, role = ""}

[[device]]
address = 5
tls = 7
[[device]]
name = "all"
"#,
        )
        .unwrap_err();
        for expected in [
            "line 1: tls has a certificate and no key",
            "line 3: tls.cert is no key of this table; did you mean \"certificate\"?",
            "line 6: device 1: name \"gw 1\" is not allowed: 1 to 63 letters",
            "line 7: device \"gw 1\": address \"gw-1\" has no port",
            "line 12: device \"gw-2\": lables is no key of this table; did you mean \"labels\"?",
            "line 14: device \"gw-2\": has the name of the one on line 9",
            "line 14: device \"gw-2\": has the address gw-2:9090 of \"gw-2\" on line 9",
            "line 17: device \"gw-2\": labels.site is integer and must be text in quotes",
            "line 17: device \"gw-2\": labels.role is empty",
            "line 19: device 4: has no name",
            "line 20: device 4: address is integer and must be text in quotes",
            "line 21: device 4: tls must be a table",
            "line 23: device 5: name \"all\" means something in selectors",
            "line 22: device \"all\": has no address",
        ] {
            assert!(words.contains(expected), "{expected}:\n{words}");
        }
        let words = parse("[[device]\n").unwrap_err();
        assert!(words.contains("line 1: this is not TOML"), "{words}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(\\[\\[device\\]\\]|name|address|=|\"|\\[tls\\]|[{},a:1]|\n| ){0,40}") {
            let _ = parse(&text);
        }
    }
}
