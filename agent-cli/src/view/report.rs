//! A page with plots.

use crate::exit::Failure;
use crate::history::Store;
use crate::view::telemetry::Overview;

/// The page about these devices, each with its histories.
pub(crate) fn page(
    _store: &Store,
    _overview: &Overview,
    _devices: &[(String, Vec<i64>)],
    _window: (i64, i64),
) -> Result<String, Failure> {
    Ok(String::new())
}
