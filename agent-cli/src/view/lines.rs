//! A line for each thing that happens, for logs and pipes.

use super::words;
use crate::exit::Failure;
use crate::fleet::event::{Event, View};
use crate::output;

/// Prints lines.
pub(super) struct Lines;

impl View for Lines {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        words::said(event).map_or(Ok(()), |text| output::line(&text))
    }
}
