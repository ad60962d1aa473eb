//! The page that explains keys and columns.

use ratatui::style::{Modifier, Style};

use super::draw::Canvas;
use super::fleet::Fleet;
use super::sort::COLUMNS;

const KEYS: [(&str, &str); 13] = [
    ("up down j k", "another device"),
    ("PgUp PgDn", "a screen further"),
    ("g G", "the first, the last"),
    ("Enter", "all about a device"),
    ("Esc", "back; show all again"),
    ("/", "find name, model, state, alarm"),
    ("< >", "sort by the column beside"),
    ("n s m o …", "sort by that column (right)"),
    ("r", "the other way round"),
    ("space", "stand still, go on"),
    ("?", "this page"),
    ("q Ctrl-C", "quit"),
    ("Ctrl-Z", "suspend; fg goes on"),
];

/// Where the columns are explained, if there is room beside the keys.
const BESIDE: usize = 43;

/// Shows the page where it is asked for.
pub(super) fn show(fleet: &Fleet, canvas: &mut Canvas<'_>) -> bool {
    if !fleet.help {
        return false;
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    canvas.write(0, 0, "agent-cli top: keys", bold);
    for (line, (key, meaning)) in KEYS.iter().enumerate() {
        canvas.write(2 + line, 0, key, bold);
        canvas.write(2 + line, 12, meaning, Style::new());
    }
    let wide = usize::from(canvas.area.width) >= BESIDE + 30;
    let (first, column) = if wide { (2, BESIDE) } else { (3 + KEYS.len(), 0) };
    for (line, about) in COLUMNS.iter().enumerate() {
        canvas.write(first + line, column, &about.key.to_string(), bold);
        canvas.write(first + line, column + 2, about.title, Style::new());
        canvas.write(first + line, column + 9, about.doc, Style::new());
    }
    let below = if wide { 3 + COLUMNS.len() } else { 4 + KEYS.len() + COLUMNS.len() };
    canvas.write(below, 0, "Times are of the last 5 minutes, tokens a second of the last 5 seconds.", Style::new());
    canvas.write(below + 1, 0, "Those above the table are of all devices together.", Style::new());
    true
}
