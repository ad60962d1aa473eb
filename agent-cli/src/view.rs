//! How fleets are shown: bars on a terminal, lines elsewhere, JSON for programs; and the tables of all commands.

mod bars;
mod lines;
pub(crate) mod log;
pub(crate) mod points;
pub(crate) mod report;
pub(crate) mod table;
pub(crate) mod telemetry;
mod words;

use std::io::IsTerminal as _;

use crate::fleet::event::{Event, View};
use crate::output::{self, Format};

/// The view that suits where the output goes.
pub(crate) fn open(format: Format) -> Box<dyn View> {
    match format {
        Format::Json => Box::new(Json),
        Format::Text if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() => {
            Box::new(bars::Bars::new())
        }
        Format::Text => Box::new(lines::Lines),
    }
}

/// One event on a line.
struct Json;

impl View for Json {
    fn show(&mut self, event: &Event) {
        // A rollout is not ended halfway because nobody reads about it any more.
        let _ = output::json(event);
    }
}
