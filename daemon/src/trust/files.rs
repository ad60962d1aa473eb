//! Metadata as they come: names and sizes are checked before anything is parsed.

use std::collections::BTreeMap;

use tough::{Bytes, Limits};

use super::error::TrustError;

/// Most bytes of a root.
pub(super) const MOST_ROOT: u64 = 256 << 10;
/// Most bytes of the targets: some thousand models.
const MOST_TARGETS: u64 = 2 << 20;
/// Most bytes of the snapshot.
const MOST_SNAPSHOT: u64 = 64 << 10;
/// Most bytes of the timestamp.
const MOST_TIMESTAMP: u64 = 16 << 10;
/// Most roots that come at once.
const MOST_ROOTS: u64 = 1024;
/// Most bytes of all files together.
pub(crate) const MOST: u64 = 4 << 20;

/// The limits in `tough`'s words, in case one of ours has a hole.
pub(super) const LIMITS: Limits = Limits {
    max_root_size: MOST_ROOT,
    max_targets_size: MOST_TARGETS,
    max_timestamp_size: MOST_TIMESTAMP,
    max_snapshot_size: MOST_SNAPSHOT,
    max_root_updates: MOST_ROOTS,
};

/// A set of metadata that may be parsed.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) roots: BTreeMap<u64, Bytes>,
    pub(super) timestamp: Bytes,
    pub(super) snapshot: Bytes,
    pub(super) targets: Bytes,
    /// All of them, by name.
    pub(super) named: BTreeMap<String, Bytes>,
}

/// What a file's name says.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Root(u64),
    Timestamp,
    Snapshot,
    Targets,
}

impl Files {
    /// Takes files by name.
    ///
    /// # Errors
    /// A name that is none of metadata, a file too many or missing, or one that is too large.
    pub fn new(files: Vec<(String, Bytes)>) -> Result<Self, TrustError> {
        let mut roots = BTreeMap::new();
        let [mut timestamp, mut snapshot, mut targets] = [None, None, None];
        let mut named = BTreeMap::new();
        let mut total = 0_u64;
        for (name, bytes) in files {
            let kind = Name::parse(&name).ok_or_else(|| {
                let shown: String = name.chars().take(64).collect();
                TrustError::Invalid(format!(
                    "{shown:?} is no name of metadata: allowed are N.root.json, timestamp.json, N.snapshot.json and \
                     N.targets.json"
                ))
            })?;
            let (limit, place) = match kind {
                Name::Root(_) => (MOST_ROOT, None),
                Name::Timestamp => (MOST_TIMESTAMP, Some(&mut timestamp)),
                Name::Snapshot => (MOST_SNAPSHOT, Some(&mut snapshot)),
                Name::Targets => (MOST_TARGETS, Some(&mut targets)),
            };
            bounded(&name, bytes.len() as u64, limit)?;
            total = total.saturating_add(bytes.len() as u64);
            bounded("the set of metadata", total, MOST)?;
            let twice = match (kind, place) {
                (Name::Root(version), _) => roots.insert(version, bytes.clone()).is_some(),
                (_, Some(place)) => place.replace(bytes.clone()).is_some(),
                (_, None) => false,
            };
            if twice {
                return Err(TrustError::Invalid(format!("there are two files like {name}: send one of each")));
            }
            named.insert(name, bytes);
        }
        let missing = |name: &str| TrustError::Invalid(format!("{name} is missing: send all files of one state"));
        if roots.len() as u64 > MOST_ROOTS {
            let bytes = format!("{} roots", roots.len());
            return Err(TrustError::TooLarge { what: "the set of metadata".to_owned(), bytes, limit: MOST_ROOTS });
        }
        Ok(Self {
            roots,
            timestamp: timestamp.ok_or_else(|| missing("timestamp.json"))?,
            snapshot: snapshot.ok_or_else(|| missing("N.snapshot.json"))?,
            targets: targets.ok_or_else(|| missing("N.targets.json"))?,
            named,
        })
    }
}

/// Refuses what is too large.
pub(super) fn bounded(what: &str, bytes: u64, limit: u64) -> Result<(), TrustError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(TrustError::TooLarge { what: what.to_owned(), bytes: format!("{bytes} bytes"), limit })
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        if name == "timestamp.json" {
            return Some(Self::Timestamp);
        }
        let (number, rest) = name.split_once('.')?;
        let version: u64 = number.parse().ok().filter(|version: &u64| *version > 0 && version.to_string() == number)?;
        match rest {
            "root.json" => Some(Self::Root(version)),
            "snapshot.json" => Some(Self::Snapshot),
            "targets.json" => Some(Self::Targets),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(extra: &[(&str, usize)]) -> Result<Files, TrustError> {
        let named = [("1.root.json", 1), ("timestamp.json", 1), ("2.snapshot.json", 1), ("3.targets.json", 1)];
        let files = named.iter().chain(extra);
        Files::new(files.map(|(name, size)| ((*name).to_owned(), vec![b' '; *size].into())).collect())
    }

    #[test]
    fn one_state_is_taken() {
        assert_eq!(state(&[("2.root.json", 1)]).unwrap().roots.len(), 2);
    }

    #[test]
    fn what_is_no_metadata_is_refused_by_name() {
        for name in [
            "root.json",
            "0.root.json",
            "01.root.json",
            "+2.root.json",
            "2.role.json",
            "../1.root.json",
            "2.mirrors.json",
            "snapshot.json",
            "1.timestamp.json",
            "",
            "1.root.json/",
            "18446744073709551616.root.json",
        ] {
            assert!(matches!(state(&[(name, 1)]), Err(TrustError::Invalid(_))), "{name}");
        }
        for twice in ["timestamp.json", "4.snapshot.json", "4.targets.json", "1.root.json"] {
            assert!(matches!(state(&[(twice, 1)]), Err(TrustError::Invalid(_))), "{twice}");
        }
        assert!(matches!(Files::new(vec![]), Err(TrustError::Invalid(_))));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_parsed() {
        let one = |name: &str, size: u64| Files::new(vec![(name.to_owned(), vec![b' '; size as usize].into())]);
        for (name, most) in [
            ("1.root.json", MOST_ROOT),
            ("timestamp.json", MOST_TIMESTAMP),
            ("1.snapshot.json", MOST_SNAPSHOT),
            ("1.targets.json", MOST_TARGETS),
        ] {
            assert!(matches!(one(name, most + 1), Err(TrustError::TooLarge { .. })), "{name}");
            assert!(matches!(one(name, most), Err(TrustError::Invalid(_))), "{name}: others are missing");
        }
        let many = (2..=1030).map(|version| (format!("{version}.root.json"), 1)).collect::<Vec<_>>();
        let many: Vec<(&str, usize)> = many.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        assert!(matches!(state(&many), Err(TrustError::TooLarge { .. })));
        let heavy = (2..=20).map(|version| (format!("{version}.root.json"), MOST_ROOT as usize)).collect::<Vec<_>>();
        let heavy: Vec<(&str, usize)> = heavy.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        assert!(matches!(state(&heavy), Err(TrustError::TooLarge { .. })));
    }
}
