//! What is known of the models when `models.json` is damaged or missing: the manifests lie among the blobs, and the audit says
//! what was done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use recurve_bundle::{Digest, Manifest};

use super::audit::{Audit, Line};
use super::error::StoreError;
use super::record::{Chosen, Kept, Record, Stage};
use super::{BLOBS, blobs, disk};

/// A record and, where it had to be rebuilt, what happened to it.
pub(super) struct Opened {
    pub(super) record: Record,
    pub(super) rebuilt: Option<String>,
}

/// Reads the record. A damaged one is kept beside its place under another name, and rebuilt; so is one that is missing although
/// there are models.
///
/// # Errors
/// A newer version wrote it, or the disk refuses.
pub(super) fn open(dir: &Path, audit: &Audit) -> Result<Opened, StoreError> {
    let why = match Record::read(dir) {
        Ok(Some(record)) => return Ok(Opened { record, rebuilt: None }),
        Ok(None) => None,
        Err(StoreError::Damaged { path, reason }) => Some((disk::keep_aside(&path)?, reason)),
        Err(error) => return Err(error),
    };
    let record = rebuild(dir, &audit.after(0)?)?;
    let why = match why {
        // A new folder.
        None if record.models.is_empty() => return Ok(Opened { record, rebuilt: None }),
        None => "models.json was missing".to_owned(),
        Some((aside, reason)) => format!("models.json was damaged ({reason}), and is kept as {}", aside.display()),
    };
    record.write(dir)?;
    let found = record.models.len();
    let words = format!("{why}; it was rebuilt from the blobs and the audit: {found} models were found");
    Ok(Opened { record, rebuilt: Some(words) })
}

fn rebuild(dir: &Path, lines: &[Line]) -> Result<Record, StoreError> {
    let mut models = BTreeMap::new();
    for (name, length) in disk::files(&dir.join(BLOBS))? {
        let Some(digest) = format!("sha256:{name}").parse::<Digest>().ok().filter(|_| length <= Manifest::MOST_BYTES)
        else {
            continue;
        };
        let bytes = disk::read(&dir.join(BLOBS).join(&name))?;
        let Some(manifest) = Manifest::parse(&bytes).ok().filter(|_| Digest::of(&bytes) == digest) else { continue };
        let is_whole =
            blobs(&manifest).all(|blob| disk::length(&dir.join(BLOBS).join(blob.digest.hex())) == Some(blob.size));
        let kept = Kept {
            manifest_bytes: length,
            bytes: manifest.size(),
            stage: Stage::Received,
            prepared: None,
            failure: None,
        };
        models.insert(digest, (kept, is_whole));
    }
    let told = Told::by(lines);
    let stage = |bundle: &Digest, is_whole: bool| match told.stages.get(bundle) {
        Some(stage) if is_whole => *stage,
        _ => Stage::Received,
    };
    let models: BTreeMap<Digest, Kept> = models
        .into_iter()
        .map(|(bundle, (kept, is_whole))| (bundle, Kept { stage: stage(&bundle, is_whole), ..kept }))
        .collect();
    let usable = |bundle: &Digest| models.get(bundle).is_some_and(|kept| kept.stage >= Stage::Prepared);
    let Chosen { active, previous, proved, .. } = told.chosen;
    let chosen = Chosen {
        active: active.filter(|active| models.contains_key(active)),
        previous: previous.filter(usable),
        proved,
        starts: 0,
    };
    Ok(Record::new(chosen, models))
}

/// What the audit says of models.
#[derive(Debug, Default)]
struct Told {
    chosen: Chosen,
    stages: BTreeMap<Digest, Stage>,
}

impl Told {
    fn by(lines: &[Line]) -> Self {
        let mut told = Self::default();
        for line in lines {
            if let Some(bundle) = line.bundle {
                told.take(line, bundle);
            }
        }
        told
    }

    fn take(&mut self, line: &Line, bundle: Digest) {
        let Self { chosen, stages } = self;
        let mut reached = |stage: Stage| {
            let before = stages.get(&bundle).copied();
            stages.insert(bundle, before.map_or(stage, |before| before.max(stage)));
        };
        match (line.what.as_str(), line.result == "done") {
            ("verified", true) => reached(Stage::Verified),
            ("prepared", true) => reached(Stage::Prepared),
            ("activate", true) => {
                reached(Stage::Prepared);
                let good: BTreeSet<Digest> =
                    stages.iter().filter(|(_, stage)| **stage == Stage::Confirmed).map(|(bundle, _)| *bundle).collect();
                *chosen = chosen.activated(bundle, |model| good.contains(model));
            }
            ("confirmed", true) if chosen.active == Some(bundle) => {
                reached(Stage::Confirmed);
                chosen.proved = true;
            }
            ("roll back", _) if chosen.active == Some(bundle) => {
                stages.insert(bundle, Stage::Verified);
                let proved = chosen.previous.is_some_and(|back| stages.get(&back) == Some(&Stage::Confirmed));
                *chosen = Chosen { active: chosen.previous, previous: None, proved, starts: 0 };
            }
            ("fail" | "check", _) => {
                stages.insert(bundle, if line.what == "fail" { Stage::Verified } else { Stage::Received });
                chosen.previous = chosen.previous.filter(|previous| *previous != bundle);
            }
            ("remove", true) => {
                stages.remove(&bundle);
            }
            _ => {}
        }
    }
}
