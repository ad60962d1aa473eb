//! Selectors: which devices of the inventory are meant.
//!
//! A selector is `all`, or names and globs of names, or conditions on labels that must all hold. Several selectors together
//! mean every device that one of them means, in the order of the selectors: who is named first goes first.

use std::str::FromStr;

use super::inventory::{Device, Inventory, check_word};
use super::near;
use crate::exit::Failure;

/// What selectors look like, for `--help` and for messages.
pub(crate) const GRAMMAR: &str = "all; names and globs: gw-1,gw-2,press-*; or labels that must all hold: site=north,role!=test,line in (1,2),line not in (3)";

/// One selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Every device.
    All,
    /// Those with one of these names; `*` stands for any characters, `?` for one.
    Names(Vec<String>),
    /// Those for which all of these hold.
    Labels(Vec<Condition>),
}

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    key: String,
    values: Vec<String>,
    /// Whether the label has one of the values, or has none of them. A device without the label has none of them.
    has: bool,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parts(text)?;
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("something is empty here; write {GRAMMAR}"));
        }
        if parts == ["all"] {
            return Ok(Self::All);
        }
        let is_condition = |part: &&str| part.contains(['=', '(']) || part.contains(" in ");
        match parts.iter().filter(|part| is_condition(part)).count() {
            0 => parts.iter().map(|part| glob(part)).collect::<Result<_, _>>().map(Self::Names),
            count if count == parts.len() => {
                parts.iter().map(|part| condition(part)).collect::<Result<_, _>>().map(Self::Labels)
            }
            _ => Err("names and labels do not mix in one selector: give --to twice to mean both".to_owned()),
        }
    }
}

/// Cut at the commas that stand in no parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut from, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match (c, inside) {
            ('(', false) | (')', true) => inside = !inside,
            ('(', true) | (')', false) => return Err(format!("the parentheses do not match in {text:?}")),
            (',', false) => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("a parenthesis is open at the end of {text:?}"));
    }
    parts.push(text[from..].trim());
    Ok(parts)
}

fn glob(text: &str) -> Result<String, String> {
    if text == "all" {
        return Err("`all` stands alone".to_owned());
    }
    // Whatever a glob stands for must be a name.
    match check_word(&text.replace(['*', '?'], "x")) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is neither a name nor a condition; write {GRAMMAR}")),
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let wrong = || format!("{text:?} is no condition; write k=v, k!=v, k in (a,b) or k not in (a,b)");
    let (key, values, has) = if let Some((head, rest)) = text.split_once('(') {
        let values = rest.strip_suffix(')').ok_or_else(wrong)?;
        let head = head.trim().strip_suffix(" in").ok_or_else(wrong)?.trim();
        let (key, has) = head.strip_suffix(" not").map_or((head, true), |key| (key.trim(), false));
        (key, values.split(',').map(str::trim).collect(), has)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key.trim(), vec![value.trim()], false)
    } else {
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        (key.trim(), vec![value.trim()], true)
    };
    check_word(key).map_err(|words| format!("{}: {words}", wrong()))?;
    for value in &values {
        check_word(value).map_err(|words| format!("{}: {words}", wrong()))?;
    }
    Ok(Condition { key: key.to_owned(), values: values.into_iter().map(str::to_owned).collect(), has })
}

/// The devices that the selectors mean, each once.
pub(crate) fn select(selectors: &[Selector], inventory: &Inventory) -> Result<Vec<Device>, Failure> {
    let mut selected: Vec<&Device> = Vec::new();
    for selector in selectors {
        for device in meant(selector, inventory)? {
            if !selected.iter().any(|known| known.name == device.name) {
                selected.push(device);
            }
        }
    }
    if selected.is_empty() {
        let words = format!("nothing is selected of the {} devices in", inventory.devices.len());
        return Err(Failure::Usage(format!("{words} {}", inventory.path.display())));
    }
    Ok(selected.into_iter().cloned().collect())
}

fn meant<'a>(selector: &Selector, inventory: &'a Inventory) -> Result<Vec<&'a Device>, Failure> {
    let devices = &inventory.devices;
    match selector {
        Selector::All => Ok(devices.iter().collect()),
        Selector::Names(globs) => {
            let mut meant = Vec::new();
            for glob in globs {
                let before = meant.len();
                meant.extend(devices.iter().filter(|device| matches(glob.as_bytes(), device.name.as_bytes())));
                if meant.len() == before {
                    inventory.device(glob)?;
                }
            }
            Ok(meant)
        }
        Selector::Labels(conditions) => {
            conditions.iter().try_for_each(|condition| known(condition, inventory))?;
            let holds = |device: &&Device| conditions.iter().all(|condition| condition.holds(device));
            Ok(devices.iter().filter(holds).collect())
        }
    }
}

impl Condition {
    fn holds(&self, device: &Device) -> bool {
        let one = device.labels.get(&self.key).is_some_and(|value| self.values.contains(value));
        one == self.has
    }
}

/// A label or value that no device has is mistyped: with `!=` it would silently mean every device.
fn known(condition: &Condition, inventory: &Inventory) -> Result<(), Failure> {
    let Condition { key, values, .. } = condition;
    let labels = || inventory.devices.iter().flat_map(|device| &device.labels);
    let sorted = |words: &mut dyn Iterator<Item = &String>| {
        let mut words: Vec<String> = words.cloned().collect();
        words.sort();
        words.dedup();
        words
    };
    if !labels().any(|(known, _)| known == key) {
        let keys = sorted(&mut labels().map(|(key, _)| key));
        let near = near::told(key, keys.iter().map(String::as_str), "labels are");
        return Err(Failure::Usage(format!("no device has the label {key:?}{near}")));
    }
    let own = sorted(&mut labels().filter(|(known, _)| *known == key).map(|(_, value)| value));
    match values.iter().find(|value| !own.contains(value)) {
        None => Ok(()),
        Some(value) => {
            let near = near::told(value, own.iter().map(String::as_str), "values are");
            Err(Failure::Usage(format!("no device has {key}={value}{near}")))
        }
    }
}

/// Whether a glob matches a name, both whole.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    // The last `*` and where its match ended: on a mismatch it takes one character more.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == name[of] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((again, taken)) => {
                    star = Some((again, taken + 1));
                    (at, of) = (again + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn inventory() -> Inventory {
        let text = r#"
            device = [
                {name = "gw-1", address = "a:1", labels = {site = "north", role = "canary"}},
                {name = "gw-2", address = "a:2", labels = {site = "north", role = "test"}},
                {name = "gw-3", address = "a:3", labels = {site = "south"}},
                {name = "press", address = "a:4"},
            ]"#;
        Inventory::parse(Path::new("fleet.toml"), text).unwrap()
    }

    fn names(selectors: &[&str]) -> Result<Vec<String>, String> {
        let selectors = selectors.iter().map(|text| text.parse::<Selector>()).collect::<Result<Vec<_>, _>>()?;
        match select(&selectors, &inventory()) {
            Ok(devices) => Ok(devices.into_iter().map(|device| device.name).collect()),
            Err(Failure::Usage(words)) => Err(words),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn selectors_mean_devices_in_their_order() {
        for (selectors, expected) in [
            (&["all"][..], &["gw-1", "gw-2", "gw-3", "press"][..]),
            (&["press,gw-1"], &["press", "gw-1"]),
            (&["gw-?", "all"], &["gw-1", "gw-2", "gw-3", "press"]),
            (&["press", "all"], &["press", "gw-1", "gw-2", "gw-3"]),
            (&["*s*"], &["press"]),
            (&["site=north"], &["gw-1", "gw-2"]),
            (&["site=north,role!=test"], &["gw-1"]),
            (&["role!=test"], &["gw-1", "gw-3", "press"]),
            (&["site in (north, south)"], &["gw-1", "gw-2", "gw-3"]),
            (&["site not in (north)"], &["gw-3", "press"]),
            (&["role=canary", "site = north"], &["gw-1", "gw-2"]),
        ] {
            assert_eq!(names(selectors).unwrap(), expected, "{selectors:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (selector, expected) in [
            ("gw-4", "no device of fleet.toml is called \"gw-4\"; did you mean \"gw-1\""),
            ("presss", "did you mean \"press\"?"),
            ("stie=north", "no device has the label \"stie\"; did you mean \"site\"?"),
            ("role!=tset", "no device has role=tset; did you mean \"test\"?"),
            ("site in (north,west)", "no device has site=west; values are \"north\", \"south\""),
            ("site=south,role=test", "nothing is selected of the 4 devices"),
            ("gw-1,site=north", "do not mix"),
            ("all,gw-1", "stands alone"),
            ("", "empty"),
            ("gw-1,", "empty"),
            ("site in (a", "open at the end"),
            ("site) in a", "do not match"),
            ("site in a", "no condition"),
            ("site is (a)", "no condition"),
            ("site=", "no condition"),
            ("gw 1", "neither a name nor a condition"),
        ] {
            let words = names(&[selector]).unwrap_err();
            assert!(words.contains(expected), "{selector}: {words}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_glob_matches_as_its_parts_do(parts in proptest::collection::vec("[a-c]{0,3}", 1..4), fill in "[a-c]{0,3}") {
            let glob = parts.join("*");
            let name = parts.join(&fill);
            proptest::prop_assert!(matches(glob.as_bytes(), name.as_bytes()));
            proptest::prop_assert!(matches(b"*", name.as_bytes()));
            let marks = "?".repeat(name.len());
            proptest::prop_assert!(matches(marks.as_bytes(), name.as_bytes()));
            let one_more = format!("{marks}?");
            proptest::prop_assert!(!matches(one_more.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_condition_and_its_opposite_part_the_fleet(value in "north|south") {
            let count = |selector: String| names(&[&selector]).unwrap().len();
            proptest::prop_assert_eq!(count(format!("site={value}")) + count(format!("site!={value}")), 4);
        }

        #[test]
        fn no_selector_is_too_strange(text in "[a-z=!(), *?-]{0,24}") {
            let _ = text.parse::<Selector>();
        }
    }
}
