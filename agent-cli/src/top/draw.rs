//! The view as cells: a function of what is known. Colours only add to what can be read without them.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::device::{Row, State};
use super::fleet::{Fleet, Totals, totals};
use super::rates::{each_token, first_token};
use super::sort::{Column, layout};
use super::words::{self, cut, width};
use super::{help, page};
use crate::output::printable;

/// Lines of the screen that are no lines of the table: two of totals, one of titles, one of keys.
const AROUND: u16 = 4;

/// What a picture depends on besides what is known.
#[derive(Debug, Clone)]
pub(crate) struct Light {
    /// By this program's clock.
    pub(crate) now: Duration,
    /// By the clock on the wall.
    pub(crate) clock: String,
    /// Colours may be used.
    pub(crate) colour: bool,
}

/// How many lines the table has.
pub(crate) fn height(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(AROUND)).max(1)
}

/// Where to draw, and in which colours.
pub(super) struct Canvas<'a> {
    pub(super) area: Rect,
    pub(super) buffer: &'a mut Buffer,
    pub(super) colour: bool,
}

impl Canvas<'_> {
    /// Writes text at a place of the area, as far as there is room for it.
    pub(super) fn write(&mut self, line: usize, column: usize, text: &str, style: Style) {
        let inside = |place: usize, size: u16| u16::try_from(place).ok().filter(|place| *place < size);
        let (Some(y), Some(x)) = (inside(line, self.area.height), inside(column, self.area.width)) else { return };
        let text = printable(text);
        let room = usize::from(self.area.width - x);
        self.buffer.set_stringn(self.area.x + x, self.area.y + y, cut(&text, room), room, style);
    }

    /// The same at the end of a line, where it leaves `free` cells at least.
    pub(super) fn write_right(&mut self, line: usize, free: usize, text: &str, style: Style) {
        let start = usize::from(self.area.width).checked_sub(width(text)).filter(|start| *start >= free);
        if let Some(start) = start {
            self.write(line, start, text, style);
        }
    }

    /// A colour, where there are any.
    pub(super) fn coloured(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// How a state looks.
    pub(super) fn of_state(&self, state: State) -> Style {
        match state {
            State::OutOfReach | State::Refuses | State::NoModel => self.coloured(Color::Red),
            State::Loading | State::Drained | State::Draining | State::Probation => self.coloured(Color::Yellow),
            State::Serving => self.coloured(Color::Green),
            State::Asked => Style::new(),
        }
    }
}

/// Draws the whole view.
pub(crate) fn draw(fleet: &Fleet, light: &Light, area: Rect, buffer: &mut Buffer) {
    let mut canvas = Canvas { area, buffer, colour: light.colour };
    let opened = fleet.page().and_then(|place| fleet.shown().get(place).map(|device| (place, device)));
    match opened {
        _ if help::show(fleet, &mut canvas) => {}
        Some((place, device)) => page::draw(device, &device.row(place, false), light, &mut canvas),
        None => table(fleet, light, &mut canvas),
    }
    let paused = if fleet.is_paused() { "PAUSED  " } else { "" };
    let clock = format!("  {paused}{}", light.clock);
    canvas.write_right(0, 12, &clock, Style::new().add_modifier(Modifier::BOLD));
}

fn table(fleet: &Fleet, light: &Light, canvas: &mut Canvas<'_>) {
    let all = fleet.all();
    let devices = all.len();
    header(&totals(&all), canvas);
    let rows = fleet.listed(all);
    // The first column is for the mark.
    let columns = layout(usize::from(canvas.area.width).saturating_sub(2), &rows);
    titles(fleet, &columns, canvas);
    let height = height(canvas.area);
    let marked = fleet.marked(&rows);
    let first = marked.saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    for (line, row) in rows.iter().enumerate().skip(first).take(height) {
        line_of(row, line == marked, 3 + line - first, &columns, light, canvas);
    }
    if rows.is_empty() {
        canvas.write(3, 2, "no device matches; Esc shows all again", Style::new());
    }
    footer(fleet, (marked, rows.len(), devices), canvas);
}

fn header(totals: &Totals, canvas: &mut Canvas<'_>) {
    let down = totals.devices - totals.up;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let up = format!("{} of {} up, {down} down", totals.up, totals.devices);
    let alarms = match totals.alarms {
        0 => "no alarms".to_owned(),
        1 => "1 alarm".to_owned(),
        more => format!("{more} alarms"),
    };
    let tokens = format!("{} tok/s made, {} read", words::number(Some(totals.made)), words::number(Some(totals.read)));
    let red = |bad: bool, canvas: &Canvas<'_>| {
        if bad { bold.patch(canvas.coloured(Color::Red)) } else { bold }
    };
    let mut column = 0;
    for (text, style) in [(up, red(down > 0, canvas)), (alarms, red(totals.alarms > 0, canvas)), (tokens, bold)] {
        canvas.write(0, column, &text, style);
        column += width(&text) + 3;
    }
    let quantile = |q| words::first_token(first_token(&totals.first, q));
    let times = format!(
        "first token p50 {} p95 {}   per token p50 {}   queue {}   rows {}/{}",
        quantile(0.5),
        quantile(0.95),
        words::each_token(each_token(&totals.each, 0.5)),
        totals.waiting,
        totals.active,
        totals.rows
    );
    canvas.write(1, 0, &times, Style::new());
}

/// The text at the left or, of numbers, at the right of its column.
fn placed(column: Column, text: &str, wide: usize) -> String {
    let text = cut(text, wide);
    let free = " ".repeat(wide - width(&text));
    if column.is_number() { free + &text } else { text + &free }
}

fn titles(fleet: &Fleet, columns: &[(Column, usize)], canvas: &mut Canvas<'_>) {
    let mut place = 2;
    for (column, wide) in columns {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let sorted = *column == fleet.sort.by;
        let style = if sorted { style.add_modifier(Modifier::UNDERLINED) } else { style };
        canvas.write(2, place, &placed(*column, column.about().title, *wide), style);
        place += wide + 1;
    }
}

fn line_of(row: &Row, marked: bool, line: usize, columns: &[(Column, usize)], light: &Light, canvas: &mut Canvas<'_>) {
    let base = if marked { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    let whole = usize::from(canvas.area.width);
    canvas.write(line, 0, &format!("{:<whole$}", if marked { ">" } else { "" }), base);
    let mut place = 2;
    for (column, wide) in columns {
        let style = match column {
            Column::State => canvas.of_state(row.state),
            Column::Alarms if !row.alarms.is_empty() => canvas.coloured(Color::Yellow),
            _ => Style::new(),
        };
        if let (Some(why), true) = (&row.why, column.is_number()) {
            // Nothing else is known of it: why stands in the place of its figures.
            canvas.write(line, place, &away(why, light.now), base);
            return;
        }
        let text = printable(&column.cell(row)).into_owned();
        canvas.write(line, place, &placed(*column, &text, *wide), base.patch(style));
        place += wide + 1;
    }
}

/// For how long nothing is heard, and why.
fn away((since, why): &(Duration, String), now: Duration) -> String {
    format!("{}: {why}", words::lasting(now.saturating_sub(*since)))
}

fn footer(fleet: &Fleet, (marked, listed, devices): (usize, usize, usize), canvas: &mut Canvas<'_>) {
    let last = usize::from(canvas.area.height.saturating_sub(1));
    let left = if fleet.typing {
        format!("find: {}_", fleet.filter)
    } else if fleet.filter.is_empty() {
        "q quit  ? help  / find  Enter open  < > sort".to_owned()
    } else {
        format!("{listed} of {devices} match \"{}\"; Esc shows all", fleet.filter)
    };
    let sort = fleet.sort;
    let reversed = if sort.reversed { ", reversed" } else { "" };
    let of = if listed == 0 { 0 } else { marked + 1 };
    let right = format!("  by {}{reversed}  {of}/{listed}", sort.by.about().title);
    canvas.write(last, 0, &left, Style::new());
    canvas.write_right(last, width(&left).min(12), &right, Style::new());
}
