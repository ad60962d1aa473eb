//! Which model is served, which one is gone back to, and what the active one did to the daemon while on probation.

use recurve_bundle::Digest;

use super::Store;
use super::error::StoreError;
use super::record::{Chosen, Stage};

impl Store {
    /// The model that is to be served, if there is one.
    pub fn active(&self) -> Option<Digest> {
        self.lock().record.chosen.active
    }

    /// The model to go back to, if there is one.
    pub fn previous(&self) -> Option<Digest> {
        self.lock().record.chosen.previous
    }

    /// Whether this model is the active one, and has still to prove itself.
    pub fn on_probation(&self, bundle: &Digest) -> bool {
        let chosen = self.lock().record.chosen;
        chosen.active == Some(*bundle) && !chosen.proved
    }

    /// Makes a prepared model the active one: it has to prove itself, whatever it did before. The one before it becomes the
    /// one to go back to; where that never proved itself, the one that it had itself to go back to stays it.
    ///
    /// # Errors
    /// It is not prepared, or the record cannot be written: then the old one stays active.
    pub fn activate(&self, bundle: Digest, who: &str) -> Result<(), StoreError> {
        self.change("activate", bundle, who, |record| {
            let kept = record.models.get_mut(&bundle).ok_or(StoreError::Unknown { bundle })?;
            if kept.stage < Stage::Prepared {
                return Err(StoreError::NotPrepared { bundle, stage: kept.stage });
            }
            let failed = kept.failure.take().is_some();
            if record.chosen.active == Some(bundle) {
                return Ok(failed);
            }
            let good = |model: &Digest| record.models.get(model).is_some_and(|kept| kept.stage == Stage::Confirmed);
            record.chosen = record.chosen.activated(bundle, good);
            Ok(true)
        })
    }

    /// Counts a start of the daemon with the active model, if that is on probation, before anything of it is loaded. Gives
    /// the number of starts that did not end in order, this one included.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn count_start(&self) -> Result<u32, StoreError> {
        let mut starts = 0;
        self.change_quietly(|record| {
            if record.chosen.active.is_none() || record.chosen.proved {
                return Ok(false);
            }
            record.chosen.starts = record.chosen.starts.saturating_add(1);
            starts = record.chosen.starts;
            Ok(true)
        })?;
        Ok(starts)
    }

    /// The active model has proved itself. Nothing happens where it is another one by now.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn confirm(&self, bundle: Digest, who: &str) -> Result<(), StoreError> {
        self.attempt(Stage::Confirmed.as_str(), Some(bundle), who, "done", |record| {
            if record.chosen.active != Some(bundle) {
                return Ok(false);
            }
            let kept = record.models.get_mut(&bundle).ok_or(StoreError::Unknown { bundle })?;
            kept.stage = Stage::Confirmed;
            record.chosen.starts = 0;
            Ok(!std::mem::replace(&mut record.chosen.proved, true))
        })
    }

    /// A model that is not the active one any more has failed, for this reason: nobody goes back to it.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn failed(&self, bundle: Digest, who: &str, reason: &str) -> Result<(), StoreError> {
        self.change_with("fail", Some(bundle), who, reason, |record| {
            let Some(kept) = record.models.get_mut(&bundle) else { return Ok(false) };
            kept.fail(reason);
            record.chosen.previous = record.chosen.previous.filter(|previous| *previous != bundle);
            Ok(true)
        })
    }

    /// The daemon ends in order: no start is held against the active model.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.change_quietly(|record| Ok(std::mem::take(&mut record.chosen.starts) > 0))
    }

    /// Makes the model before the active one again, since the active one failed; the reason is kept with that. Gives the
    /// model that is active now: none where there was none before.
    ///
    /// # Errors
    /// No model is active, or the record cannot be written.
    pub fn go_back(&self, who: &str, reason: &str) -> Result<Option<Digest>, StoreError> {
        let failed = self.active().ok_or(StoreError::NoPrevious)?;
        let back = self.previous();
        self.change_with("roll back", Some(failed), who, reason, |record| {
            let proved =
                back.and_then(|back| record.models.get(&back)).is_some_and(|kept| kept.stage == Stage::Confirmed);
            record.chosen = Chosen { active: back, previous: None, proved, starts: 0 };
            if let Some(kept) = record.models.get_mut(&failed) {
                kept.fail(reason);
            }
            Ok(true)
        })?;
        Ok(back)
    }
}
