//! Fleets: which devices there are, which of them are meant, and how a model reaches them.
//!
//! A rollout goes `inventory` → `select` → `plan` → `wave` → `device` (`transfer`, `look`) → `gate` → report. What is decided,
//! `select`, `wave`, `gate`, `rate` and `next`, is decided by pure functions. Nothing is remembered here: what a rollout has done is
//! read from the devices.

pub(crate) mod ask;
pub(crate) mod device;
pub(crate) mod discover;
pub(crate) mod edit;
mod entry;
pub(crate) mod event;
pub(crate) mod gate;
pub(crate) mod halt;
pub(crate) mod inventory;
pub(crate) mod look;
mod near;
mod next;
pub(crate) mod plan;
pub(crate) mod rate;
pub(crate) mod rollout;
pub(crate) mod select;
pub(crate) mod source;
pub(crate) mod transfer;
pub(crate) mod undo;
pub(crate) mod wave;
