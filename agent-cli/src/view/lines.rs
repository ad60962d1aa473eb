//! A line for each thing that happens, for logs and pipes.

use super::words;
use crate::fleet::event::{Event, View};
use crate::output;

/// Prints lines.
pub(super) struct Lines;

impl View for Lines {
    fn show(&mut self, event: &Event) {
        if let Some(text) = words::said(event) {
            // A rollout is not ended halfway because nobody reads about it any more.
            let _ = output::line(&text);
        }
    }
}
