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

    /// Makes a prepared model the active one; the one before it becomes the one to go back to.
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
            let Chosen { active, previous, starts } = &mut record.chosen;
            if *active == Some(bundle) {
                return Ok(failed);
            }
            *previous = active.replace(bundle);
            *starts = 0;
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
            let active = record.chosen.active.and_then(|active| record.models.get(&active));
            if active.is_none_or(|kept| kept.stage == Stage::Confirmed) {
                return Ok(false);
            }
            record.chosen.starts = record.chosen.starts.saturating_add(1);
            starts = record.chosen.starts;
            Ok(true)
        })?;
        Ok(starts)
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
            record.chosen = Chosen { active: back, previous: None, starts: 0 };
            if let Some(kept) = record.models.get_mut(&failed) {
                kept.stage = kept.stage.min(Stage::Verified);
                kept.failure = Some(reason.to_owned());
            }
            Ok(true)
        })?;
        Ok(back)
    }
}
