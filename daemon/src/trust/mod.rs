//! Whose models this node believes: TUF metadata (The Update Framework, specification 1.0).
//!
//! ```text
//! STATE/trust/trusted            root, timestamp, snapshot and targets, and the latest time that is known
//! STATE/trust/scratch            what `tough` writes while it checks; empty otherwise
//! ```
//!
//! The root is installed once; every later state is signed by the one before. [`Trust::update`] checks all of it, then keeps
//! all of it in one write. [`Trust::check`] is asked when an operator has a model served, and only then: what runs is never
//! stopped by a time that passes. The way back does not close with time either: an operator's needs a signature, the device's
//! own not even that.
//!
//! **The clock.** A gateway may wake with its clock in the past, and then cannot tell what has expired. The latest time at
//! which all metadata were good is kept. Where the clock is behind it by more than a minute, updates and deployments are
//! refused (`CLOCK_BEHIND`) until it is set; everything else goes on. That time never lies beyond an expiry. Where the clock
//! was ahead once, an operator of the device has the present time taken instead ([`Trust::reset_clock`]).

mod error;
mod files;
mod record;
mod update;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use recurve_bundle::Digest;
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;
use tough::schema::RoleType;
use tracing::{error, info, warn};

pub use error::TrustError;
pub use files::Files;
pub(crate) use files::MOST;
use record::Trusted;

use crate::config::TrustSettings;
use crate::store::{SELF, Store, StoreError, disk};

/// 2026-01-01: a clock that says an earlier time was never set. In seconds since 1970.
pub const EARLIEST: u64 = 1_767_225_600;
/// Clocks are set back by as much while they are kept in step.
const SLACK: TimeDelta = TimeDelta::minutes(1);

/// What is done about models that are not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// They are served.
    Off,
    /// They are served, and the log tells of it.
    Warn,
    /// They are refused.
    Enforce,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

/// What is believed.
#[derive(Debug)]
pub struct Trust {
    folder: PathBuf,
    /// `trust.mode`, where it is set.
    mode: Option<Mode>,
    /// Whether other machines reach the node.
    reachable: bool,
    store: Arc<Store>,
    trusted: Mutex<Option<Trusted>>,
    /// The file that is damaged, and what is wrong with it: until somebody mends that, no model is believed and no root taken.
    damaged: Option<(PathBuf, String)>,
}

/// The same, for who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What is done about models that are not signed.
    pub mode: Mode,
    /// Version and expiry of each role; none where there is no root.
    pub roles: Vec<(RoleType, u64, DateTime<Utc>)>,
    /// The models that are signed.
    pub bundles: Vec<Digest>,
    /// The latest time that is known to have been reached.
    pub known_time: Option<DateTime<Utc>>,
    /// The clock is behind that.
    pub clock_behind: bool,
}

impl Trust {
    /// Reads what is believed, and installs the configuration's root where nothing is. Blocks. Where what is kept is damaged, the
    /// node serves the models that it has, and takes neither models nor roots.
    ///
    /// # Errors
    /// What is kept cannot be read, or the configuration's root is none.
    pub fn open(state: &Path, settings: &TrustSettings, store: Arc<Store>) -> Result<Self, TrustError> {
        let folder = state.join("trust");
        disk::make_folder(&folder)?;
        let (trusted, damaged) = match Trusted::read(&folder) {
            Err(TrustError::Damaged { path, reason }) => (None, Some((path, reason))),
            read => (read?, None),
        };
        let known = trusted.as_ref().and_then(|trusted| trusted.stored.known_time);
        let (mode, reachable) = (settings.mode, settings.reachable);
        let trust = Self { folder, mode, reachable, store, trusted: Mutex::new(trusted), damaged };
        if let Err(error) = trust.undamaged() {
            error!(%error, "what is trusted cannot be read: the node serves what it has, and no model can be deployed");
        } else if let Some(path) = settings.root.as_ref().filter(|_| trust.lock().is_none()) {
            trust.install(&read_root(path)?, SELF)?;
        }
        if let Some(error) = behind(Utc::now(), known) {
            warn!(reason = %error, "the clock is behind: updates of trust and deployments are refused until it is set");
        }
        Ok(trust)
    }

    /// Takes the first root.
    ///
    /// # Errors
    /// There is one, this is none, or it cannot be kept.
    pub fn install(&self, root: &[u8], who: &str) -> Result<(), TrustError> {
        let mut trusted = self.lock();
        let installed = match trusted.as_ref() {
            Some(old) => Err(TrustError::Installed { version: old.root.version.get() }),
            None => self.undamaged().and_then(|()| update::first(root)).and_then(|new| {
                new.write(&self.folder)?;
                Ok(new)
            }),
        };
        // What is on the disk is believed, whatever becomes of the audit.
        let installed = installed.map(|new| trusted.insert(new));
        self.audited("install root", who, &installed)?;
        let new = installed?;
        info!(by = who, root = new.root.version.get(), mode = self.mode_with(true).as_str(), "root of trust installed");
        Ok(())
    }

    /// Takes newer metadata, if all of them are good. Blocks; must not be called where asynchronous code runs.
    ///
    /// # Errors
    /// There is no root, or something is wrong with the metadata, the clock or the disk: then what was believed is.
    pub fn update(&self, files: Result<Files, TrustError>, who: &str) -> Result<(), TrustError> {
        let mut trusted = self.lock();
        let updated = match trusted.as_ref() {
            None => self.undamaged().and(Err(TrustError::NoRoot)),
            Some(old) => files.and_then(|files| self.verified(old, &files, Utc::now())),
        };
        let updated = updated.map(|new| trusted.insert(new));
        self.audited("update trust", who, &updated)?;
        let new = updated?;
        let version =
            |role| new.roles().iter().find(|(found, ..)| *found == role).map_or(0, |(_, version, _)| *version);
        info!(
            by = who,
            root = version(RoleType::Root),
            timestamp = version(RoleType::Timestamp),
            targets = version(RoleType::Targets),
            "trust updated"
        );
        Ok(())
    }

    fn verified(&self, old: &Trusted, files: &Files, now: DateTime<Utc>) -> Result<Trusted, TrustError> {
        if let Some(behind) = behind(now, old.stored.known_time) {
            return Err(behind);
        }
        let mut new = update::verified(old, files, &self.folder.join("scratch"))?;
        let reached = reached(now, old.stored.known_time);
        unexpired(&new, reached)?;
        new.stored.known_time = Some(reached);
        new.write(&self.folder)?;
        Ok(new)
    }

    /// Whether an operator may have this model served now. `size`: bytes of its manifest.
    ///
    /// # Errors
    /// It is not signed, or nobody can say so now; with `warn` and `off` never for these reasons.
    pub fn check(&self, bundle: Digest, size: u64, who: &str) -> Result<(), TrustError> {
        self.check_at(bundle, size, who, Some(Utc::now()))
    }

    /// The same for the model that was served before: it was fresh once, and the way back does not close with time.
    ///
    /// # Errors
    /// As those of [`check`](Self::check), without those of the clock and of expiry.
    pub fn check_back(&self, bundle: Digest, size: u64, who: &str) -> Result<(), TrustError> {
        self.check_at(bundle, size, who, None)
    }

    /// Keeps that this time was reached, where the clock can be believed: metadata are good, and it is not behind.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn remember_time(&self, now: DateTime<Utc>) -> Result<(), TrustError> {
        let mut trusted = self.lock();
        match trusted.as_ref().map(|trusted| (fresh(trusted, now), trusted.stored.known_time)) {
            Some((Ok(reached), Some(_))) => self.reach(&mut trusted, reached),
            _ => Ok(()),
        }
    }

    /// Takes the present time for the latest one that was reached, where the clock is behind that: the clock was ahead once. The
    /// caller must be an operator on this machine, who could set its clock as well. Blocks.
    ///
    /// # Errors
    /// There is no root, the clock was never set, or this cannot be kept.
    pub fn reset_clock(&self, who: &str) -> Result<(), TrustError> {
        self.reset_clock_at(Utc::now(), who)
    }

    fn reset_clock_at(&self, now: DateTime<Utc>, who: &str) -> Result<(), TrustError> {
        let mut trusted = self.lock();
        self.undamaged()?;
        let known = trusted.as_ref().ok_or(TrustError::NoRoot)?.stored.known_time;
        let Some(known) = known.filter(|known| *known > now) else { return Ok(()) };
        let earliest = DateTime::from_timestamp(EARLIEST.cast_signed(), 0).unwrap_or_default();
        let reset = if now < earliest {
            Err(TrustError::ClockNotSet { now, earliest })
        } else {
            self.keep_time(&mut trusted, now).map_err(TrustError::from)
        };
        let what = format!("reset the latest known time {} to {}", error::shown(&known), error::shown(&now));
        self.audited(&what, who, &reset)?;
        reset?;
        warn!(by = who, from = %known, to = %now, "the latest known time was reset: what expired between them counts as good");
        Ok(())
    }

    /// Keeps the time every hour, as long as the handle lives: a node may run for months between two deployments, and then
    /// wake in the past. Needs a tokio runtime.
    pub fn follow_clock(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let trust = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut hours = interval(Duration::from_secs(60 * 60));
            loop {
                hours.tick().await;
                let trust = Arc::clone(&trust);
                if let Ok(Err(error)) = spawn_blocking(move || trust.remember_time(Utc::now())).await {
                    warn!(%error, "the time that was reached cannot be kept");
                }
            }
        }))
    }

    /// `now`: none where it does not matter.
    fn check_at(&self, bundle: Digest, size: u64, who: &str, now: Option<DateTime<Utc>>) -> Result<(), TrustError> {
        let mut trusted = self.lock();
        let mode = self.mode_with(trusted.is_some());
        if mode == Mode::Off {
            return Ok(());
        }
        let error = match self.undamaged().and_then(|()| judge(trusted.as_ref(), bundle, size, now)) {
            Ok(reached) => return reached.map_or(Ok(()), |reached| self.reach(&mut trusted, reached)),
            Err(error) => error,
        };
        if mode == Mode::Enforce {
            self.store.note("trust", Some(bundle), who, &error.to_string())?;
            return Err(error);
        }
        warn!(%bundle, by = who, reason = %error, "a model is served that is not trusted, since trust.mode is warn");
        self.store.note("trust", Some(bundle), who, &format!("only warned: {error}"))?;
        Ok(())
    }

    /// Keeps the time, if it is a later one.
    fn reach(&self, trusted: &mut Option<Trusted>, reached: DateTime<Utc>) -> Result<(), TrustError> {
        match trusted.as_ref().filter(|old| old.stored.known_time < Some(reached)) {
            Some(_) => Ok(self.keep_time(trusted, reached)?),
            None => Ok(()),
        }
    }

    fn keep_time(&self, trusted: &mut Option<Trusted>, time: DateTime<Utc>) -> Result<(), StoreError> {
        if let Some(old) = trusted.as_ref() {
            let mut new = old.clone();
            new.stored.known_time = Some(time);
            new.write(&self.folder)?;
            *trusted = Some(new);
        }
        Ok(())
    }

    /// What is believed now.
    pub fn state(&self) -> State {
        let trusted = self.lock();
        let known_time = trusted.as_ref().and_then(|trusted| trusted.stored.known_time);
        let mut bundles: Vec<Digest> = trusted.iter().flat_map(Trusted::bundles).map(|(digest, _)| digest).collect();
        bundles.sort();
        State {
            mode: self.mode_with(trusted.is_some()),
            roles: trusted.as_ref().map(Trusted::roles).unwrap_or_default(),
            bundles,
            known_time,
            clock_behind: behind(Utc::now(), known_time).is_some(),
        }
    }

    fn mode_with(&self, root: bool) -> Mode {
        let enforced = self.reachable || root || self.damaged.is_some();
        self.mode.unwrap_or(if enforced { Mode::Enforce } else { Mode::Off })
    }

    /// The damage to what is kept, in words, where there is any.
    pub fn damage(&self) -> Option<String> {
        self.undamaged().err().map(|error| error.to_string())
    }

    fn undamaged(&self) -> Result<(), TrustError> {
        let damaged = self.damaged.clone();
        damaged.map_or(Ok(()), |(path, reason)| Err(TrustError::Damaged { path, reason }))
    }

    fn audited<T>(&self, what: &str, who: &str, result: &Result<T, TrustError>) -> Result<(), StoreError> {
        let words = result.as_ref().err().map_or_else(|| "done".to_owned(), ToString::to_string);
        self.store.note(what, None, who, &words)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trusted>> {
        // What is believed is replaced whole, so a panic elsewhere leaves it whole.
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this model may be served; gives the time that was reached.
fn judge(
    trusted: Option<&Trusted>,
    bundle: Digest,
    size: u64,
    now: Option<DateTime<Utc>>,
) -> Result<Option<DateTime<Utc>>, TrustError> {
    let trusted = trusted.ok_or(TrustError::NoRoot)?;
    if !trusted.bundles().any(|signed| signed == (bundle, size)) {
        return Err(TrustError::NotSigned { bundle });
    }
    now.map(|now| fresh(trusted, now)).transpose()
}

/// The time that was reached, if metadata have not expired then.
fn fresh(trusted: &Trusted, now: DateTime<Utc>) -> Result<DateTime<Utc>, TrustError> {
    let known = trusted.stored.known_time;
    if let Some(behind) = behind(now, known) {
        return Err(behind);
    }
    let reached = reached(now, known);
    unexpired(trusted, reached)?;
    Ok(reached)
}

fn unexpired(trusted: &Trusted, now: DateTime<Utc>) -> Result<(), TrustError> {
    match trusted.roles().into_iter().find(|(_, _, expires)| *expires <= now) {
        Some((role, _, expires)) => Err(TrustError::Expired { role, expired: Some(expires) }),
        None => Ok(()),
    }
}

fn behind(now: DateTime<Utc>, known: Option<DateTime<Utc>>) -> Option<TrustError> {
    let known = known.filter(|known| *known - now > SLACK)?;
    Some(TrustError::ClockBehind { now, known })
}

fn reached(now: DateTime<Utc>, known: Option<DateTime<Utc>>) -> DateTime<Utc> {
    known.map_or(now, |known| known.max(now))
}

/// The configuration's root.
fn read_root(path: &Path) -> Result<Vec<u8>, TrustError> {
    if let Some(length) = disk::length(path) {
        files::bounded(&path.display().to_string(), length, files::MOST_ROOT)?;
    }
    Ok(disk::read(path)?)
}

#[cfg(test)]
mod tests;
