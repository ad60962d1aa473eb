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

use crate::exit::Failure;
use crate::fleet::event::{Event, View};
use crate::output::{self, Format};
use crate::terminal;

/// The view that suits where the output goes.
pub(crate) fn open(format: Format) -> Box<dyn View> {
    match format {
        Format::Json => Box::new(Json),
        Format::Text if std::io::stdout().is_terminal() && terminal::steers(&std::io::stderr()) => {
            Box::new(bars::Bars::new())
        }
        Format::Text => Box::new(lines::Lines),
    }
}

/// One event on a line.
struct Json;

impl View for Json {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        output::json(event)
    }
}
