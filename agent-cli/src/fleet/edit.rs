//! Changes to the inventory's file: comments and order stay, and the file is the old or the new one at every instant.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

use super::inventory::{self, Inventory};
use crate::exit::Failure;

/// A label to set, or with no value to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Its name.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: Option<String>,
}

impl std::str::FromStr for Label {
    type Err = String;

    /// `KEY=VALUE`, or `KEY-`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value)),
            (None, Some(key)) => (key, None),
            (None, None) => return Err("write KEY=VALUE, such as site=north, or KEY- to remove one".to_owned()),
        };
        inventory::check_word(key)?;
        value.map_or(Ok(()), inventory::check_word)?;
        Ok(Self { key: key.to_owned(), value: value.map(str::to_owned) })
    }
}

/// A device is added at the end.
pub(crate) fn add(text: &str, name: &str, address: &str, labels: &[Label]) -> Result<String, Failure> {
    let mut document = document(text)?;
    let mut own = InlineTable::new();
    for label in labels {
        if let Some(value) = &label.value {
            own.insert(&label.key, Value::from(value.as_str()));
        }
    }
    let fill = |table: &mut dyn TableLike| {
        table.insert("name", toml_edit::value(name));
        table.insert("address", toml_edit::value(address));
        if !own.is_empty() {
            table.insert("labels", toml_edit::value(own.clone()));
        }
    };
    let devices = document.entry("device").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    match devices {
        Item::ArrayOfTables(tables) => {
            let mut table = Table::new();
            fill(&mut table);
            // After an empty line, but not at the beginning of the file.
            table.decor_mut().set_prefix(if text.trim().is_empty() { "" } else { "\n" });
            tables.push(table);
        }
        devices => {
            let Some(array) = devices.as_array_mut() else { return Err(no_list()) };
            let mut table = InlineTable::new();
            fill(&mut table);
            array.push(table);
        }
    }
    Ok(document.to_string())
}

/// The device with this name is removed, and the comment that stands directly above it.
pub(crate) fn remove(text: &str, name: &str) -> Result<String, Failure> {
    let mut document = document(text)?;
    match document.get_mut("device") {
        Some(Item::ArrayOfTables(tables)) => {
            let named = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name);
            let Some(at) = tables.iter().position(named) else { return Err(no_list()) };
            let kept = tables.get(at).map(above).unwrap_or_default();
            tables.remove(at);
            if kept.is_empty() {
                return Ok(document.to_string());
            }
            match tables.get_mut(at) {
                Some(next) => {
                    let prefix = raw(next.decor().prefix());
                    next.decor_mut().set_prefix(format!("{kept}{}", prefix.trim_start_matches('\n')));
                }
                None => {
                    let trailing = raw(Some(document.trailing()));
                    document.set_trailing(format!("{kept}{trailing}"));
                }
            }
        }
        Some(devices) => {
            let Some(array) = devices.as_array_mut() else { return Err(no_list()) };
            array.retain(|value| {
                value.as_inline_table().and_then(|table| table.get("name")).and_then(Value::as_str) != Some(name)
            });
        }
        None => return Err(no_list()),
    }
    Ok(document.to_string())
}

/// Labels of the device with this name are set and removed.
pub(crate) fn label(text: &str, name: &str, labels: &[Label]) -> Result<String, Failure> {
    let mut document = document(text)?;
    let device: Option<&mut dyn TableLike> = match document.get_mut("device") {
        Some(Item::ArrayOfTables(tables)) => tables
            .iter_mut()
            .find(|table| table.get("name").and_then(Item::as_str) == Some(name))
            .map(|table| table as &mut dyn TableLike),
        Some(Item::Value(Value::Array(array))) => array
            .iter_mut()
            .filter_map(Value::as_inline_table_mut)
            .find(|table| table.get("name").and_then(Value::as_str) == Some(name))
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    };
    let Some(device) = device else { return Err(no_list()) };
    if !device.contains_key("labels") {
        device.insert("labels", toml_edit::value(InlineTable::new()));
    }
    let Some(own) = device.get_mut("labels").and_then(Item::as_table_like_mut) else { return Err(no_list()) };
    for Label { key, value } in labels {
        match value {
            None => drop(own.remove(key)),
            Some(value) => {
                let mut new = Value::from(value.as_str());
                if let Some(old) = own.get(key).and_then(Item::as_value) {
                    *new.decor_mut() = old.decor().clone();
                }
                own.insert(key, Item::Value(new));
            }
        }
    }
    Ok(document.to_string())
}

/// What stands above a table and is not about it: all but its last paragraph.
fn above(table: &Table) -> String {
    let prefix = raw(table.decor().prefix());
    match prefix.rfind("\n\n") {
        Some(end) => prefix[..end + 2].to_owned(),
        None => String::new(),
    }
}

fn raw(text: Option<&RawString>) -> String {
    text.and_then(RawString::as_str).unwrap_or_default().to_owned()
}

fn document(text: &str) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| Failure::Usage(format!("the inventory is not TOML: {error}")))
}

fn no_list() -> Failure {
    Failure::Usage("the inventory has no such device".to_owned())
}

/// Changes the file at `path`, or makes it: `edit` is given its text and gives the new one, which is checked before it is
/// written. Two commands that change it at once do so one after the other.
pub(crate) fn change(path: &Path, edit: impl FnOnce(&str) -> Result<String, Failure>) -> Result<Inventory, Failure> {
    let failed = |what: &str, path: &Path, error: std::io::Error| {
        Failure::Failed(format!("cannot {what} {}: {error}", path.display()))
    };
    // Where it is a link, what it leads to is changed.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, error))?;
    let lock = File::open(folder).map_err(|error| failed("open the folder", folder, error))?;
    lock.lock().map_err(|error| failed("lock the folder", folder, error))?;
    let old = inventory::text(path)?.unwrap_or_default();
    Inventory::parse(path, &old)?;
    let new = edit(&old)?;
    let inventory = Inventory::parse(path, &new)?;
    let beside = path.with_extension("toml.new");
    let write = || {
        let mut file = File::create(&beside)?;
        if let Ok(metadata) = fs::metadata(path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        lock.sync_all()
    };
    write().map_err(|error| failed("write", path, error))?;
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# The fleet of plant 7

# goes first
[[device]]
name = "gw-1" # by the door
address = "gw-1:9090"
labels = {site = "north"}

# near the press
[[device]]
name = "gw-2"
address = "gw-2:9090"

[device.labels] # as it was handed over
site = "south" # hall 2
role = "test"
"#;

    fn labels(words: &[&str]) -> Vec<Label> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn a_device_is_added_at_the_end() {
        let added = add(FILE, "gw-3", "gw-3:9090", &labels(&["site=north", "role=canary"])).unwrap();
        let end = "\n[[device]]\nname = \"gw-3\"\naddress = \"gw-3:9090\"\nlabels = { site = \"north\", role = \"canary\" }\n";
        assert_eq!(added, format!("{FILE}{end}"));
        assert_eq!(add("", "a", "a:1", &[]).unwrap(), "[[device]]\nname = \"a\"\naddress = \"a:1\"\n");
        let array = add("device = [{name = 'a', address = 'a:1'}]\n", "b", "b:1", &[]).unwrap();
        assert_eq!(Inventory::parse(Path::new("x"), &array).unwrap().devices.len(), 2, "{array}");
    }

    #[test]
    fn a_device_takes_its_own_comment_along_and_no_other() {
        let removed = remove(FILE, "gw-1").unwrap();
        assert!(removed.starts_with("# The fleet of plant 7\n\n# near the press\n[[device]]\n"), "{removed}");
        let removed = remove(FILE, "gw-2").unwrap();
        assert_eq!(removed, FILE[..FILE.find("\n# near").unwrap()]);
        let last = remove(&remove(FILE, "gw-2").unwrap(), "gw-1").unwrap();
        assert!(last.starts_with("# The fleet of plant 7\n") && !last.contains("device"), "{last}");
    }

    #[test]
    fn labels_change_and_comments_stay() {
        let changed = label(FILE, "gw-2", &labels(&["site=west", "role-", "line=4"])).unwrap();
        let expected = FILE.replace("\"south\"", "\"west\"").replace("role = \"test\"", "line = \"4\"");
        assert_eq!(changed, expected);
        let changed = label(FILE, "gw-1", &labels(&["role=canary"])).unwrap();
        assert!(changed.contains("labels = {site = \"north\", role = \"canary\" }"), "{changed}");
        let bare = "[[device]]\nname = 'a'\naddress = 'a:1'\n";
        assert!(label(bare, "a", &labels(&["x=y"])).unwrap().contains("labels = { x = \"y\" }"));
    }

    #[test]
    fn labels_are_checked() {
        assert_eq!(labels(&["a=b", "a-"])[1], Label { key: "a".to_owned(), value: None });
        for wrong in ["", "a", "=b", "a=", "a b=c", "-", "a=b,c"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_file_is_made_changed_and_never_made_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/fleet.toml");
        change(&path, |old| add(old, "gw-1", "gw-1:9090", &[])).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        let wrong = change(&path, |old| add(old, "gw-2", "gw-1:9090", &[]));
        assert!(matches!(wrong, Err(Failure::Usage(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(change(&link, |old| add(old, "gw-2", "gw-2:9090", &[])).unwrap().devices.len(), 2);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "nothing is left beside it");
    }

    proptest::proptest! {
        #[test]
        fn what_was_added_can_be_removed_again(names in proptest::collection::hash_set("[b-h]{1,4}", 1..6)) {
            let mut text = FILE.to_owned();
            for name in &names {
                text = add(&text, name, &format!("{name}:1"), &[]).unwrap();
            }
            proptest::prop_assert_eq!(Inventory::parse(Path::new("x"), &text).unwrap().devices.len(), 2 + names.len());
            for name in &names {
                text = remove(&text, name).unwrap();
            }
            proptest::prop_assert_eq!(text, FILE);
        }
    }
}
