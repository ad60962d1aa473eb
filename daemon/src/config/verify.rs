//! The settings of what looks after the stored models.

use std::num::NonZeroU64;
use std::time::Duration;

use super::key::{Key, Kind};
use super::read::Reader;

/// `verify.rate`
pub(super) const RATE: Key = Key {
    path: "verify.rate",
    kind: Kind::Integer { min: 0, max: 1 << 40 },
    default: Some("20000000"),
    flag: None,
    doc: "Bytes of the stored models, or of `bundle`, that are hashed each second in the background, at the lowest CPU priority: all of \
          them once from when the daemon is ready, and again after `verify.hours`. A model that is found damaged is no longer served. \
          0: never.",
};

/// `verify.hours`
pub(super) const HOURS: Key = Key {
    path: "verify.hours",
    kind: Kind::Integer { min: 0, max: 8784 },
    default: Some("24"),
    flag: None,
    doc: "Hours between the end of one pass of `verify.rate` and the beginning of the next. 0: one pass after each start.",
};

/// How stored models are hashed in the background.
#[derive(Debug, Clone, Copy)]
pub struct VerifySettings {
    /// `verify.rate`: bytes in a second.
    pub rate: NonZeroU64,
    /// `verify.hours`
    pub every: Option<Duration>,
}

impl VerifySettings {
    /// Reads both keys; none where nothing is to be hashed.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let (rate, hours) = (reader.integer(RATE.path), reader.integer(HOURS.path));
        let every = hours.filter(|hours| *hours > 0).map(|hours| Duration::from_secs(hours * 60 * 60));
        Some(Self { rate: NonZeroU64::new(rate?)?, every })
    }
}
