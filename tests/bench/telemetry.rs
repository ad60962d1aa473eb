//! The group `telemetry`: what it costs that the daemon knows itself, and how a fleet is gathered and watched.

mod cost;
mod fleet;
mod minutes;
mod month;
mod outage;

use crate::report::Table;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// The group `telemetry`.
///
/// # Errors
/// A request failed, or the disk did.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    let say = |what: &str| progress(&format!("{}: telemetry: {what}", subject.name()));
    say("what it costs a token");
    let cost = cost::measure(bench, subject)?;
    say("a collector that is away");
    let outage = outage::measure(bench, subject)?;
    say("a month of history");
    let month = month::measure(bench, subject)?;
    say("a fleet");
    let fleet = fleet::measure(bench, subject)?;
    Ok(vec![cost, outage, month, fleet])
}
