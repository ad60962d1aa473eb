//! What is served first: the configuration's bundle, or the store's active model, or the one before it, or none. Each passes the
//! short form of its golden test, so that damaged weights are noticed as far as one step can tell.

use std::path::Path;

use recurve_bundle::{Bundle, Digest};
use recurve_telemetry::event;
use tracing::error;

use super::load::{Loaded, Means, load};
use crate::Error;
use crate::progress::Trouble;
use crate::store::{SELF, Stage, Store, StoreError};

/// The configuration's bundle.
///
/// # Errors
/// It cannot be served. Where its golden test fails, its blobs are hashed, so that the error names a damaged one.
pub(super) fn configured(means: &Means, dir: &Path) -> Result<Loaded, Error> {
    let bundle = Bundle::open(dir)?;
    let loaded = load(means, &bundle);
    if let Err(Error::Golden { .. }) = &loaded {
        bundle.verify(&mut |_| {})?;
    }
    loaded
}

/// The store's active model, the one before it where that cannot be served or ends the daemon again and again, or none.
/// What cannot be written is logged.
pub(super) fn first(means: &Means, store: &Store) -> Option<Loaded> {
    if let Some(reason) = store.rebuilt() {
        error!(
            event = event::STORE_REBUILT.name,
            reason, "the record of the models was rebuilt: look whether it is right"
        );
    }
    let active = store.active()?;
    // Whatever cannot be written, what can be served is.
    let starts = unless_failed(store.count_start()).unwrap_or(0);
    let reason = if starts > means.settings.probation.starts {
        let times = if starts == 2 { "once".to_owned() } else { format!("{} times", starts - 1) };
        format!("the daemon ended {times} while it was on probation")
    } else {
        match open(means, store, active) {
            Ok(loaded) => return Some(loaded),
            Err(reason) => reason,
        }
    };
    let Some(previous) = store.previous() else {
        // One that serves no more after it once did is kept: what it lacks may come back.
        let once = matches!(store.stage(&active), Some(Stage::Confirmed | Stage::Received));
        if once {
            unless_failed(store.note("serve", Some(active), SELF, &reason));
        } else {
            unless_failed(store.go_back(SELF, &reason));
        }
        means.progress.in_trouble(Trouble::Models(reason.clone()));
        error!(bundle = %active, reason, "the active model cannot be served and there is none to go back to: deploy one");
        return None;
    };
    match open(means, store, previous) {
        Ok(loaded) => {
            unless_failed(store.go_back(SELF, &reason));
            error!(event = event::ROLLED_BACK.name, from = %active, to = %previous, reason, "rolled back");
            Some(loaded)
        }
        Err(error) => {
            unless_failed(store.note("serve", Some(previous), SELF, &error));
            means.progress.in_trouble(Trouble::Models(format!("{reason}; the one before: {error}")));
            error!(bundle = %active, reason, %previous, error, "neither the active model nor the one before can be served");
            None
        }
    }
}

/// Loads a model of the store, or returns why it cannot be served. Where loading fails, its blobs are hashed: a damaged one is the
/// reason then, and is removed, so that the next deployment brings it.
pub(super) fn open(means: &Means, store: &Store, bundle: Digest) -> Result<Loaded, String> {
    // What it lacked may have come back.
    if let Some(known) = store.damage_of(&bundle)
        && store.verify(bundle, SELF, &mut |_| {}).is_err()
    {
        return Err(known);
    }
    let loaded = store.bundle(bundle).map_err(Error::from).and_then(|opened| load(means, &opened));
    loaded.map_err(|error| store.check(bundle).unwrap_or_else(|| error.to_string()))
}

/// What was done, where the disk let us; else the log has why not.
fn unless_failed<T>(done: Result<T, StoreError>) -> Option<T> {
    done.inspect_err(|error| error!(%error, "the store cannot be written: the next start may decide this again")).ok()
}
