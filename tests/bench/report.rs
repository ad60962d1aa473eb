//! Tables for people, and all of their figures as JSON.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table as Drawn, presets};
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::args::Group;
use crate::samples::{Middle, Samples};
use crate::subject::Subject;

/// What was measured so far. Written to its file again after every group, so that nothing is lost with a later one.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Map<String, Value>,
    file: Option<PathBuf>,
    groups: Vec<Value>,
}

/// Measurements that are read side by side.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    notes: Vec<String>,
    lines: Vec<Line>,
}

/// One line of a table: what was measured, and its figures.
#[derive(Debug)]
pub(crate) struct Line {
    of: Vec<(&'static str, Value)>,
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    unit: Unit,
    middle: Middle,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Tokens a second.
    TokensPerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Bytes.
    Bytes,
    /// 10⁶ bytes.
    Megabytes,
    /// 10⁹ bytes a second.
    GigabytesPerSecond,
    /// 10⁹ products of two values, added up, a second.
    GigaMacs,
    /// A ratio, of 1.
    Times,
    /// A ratio, of 100.
    Percent,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::TokensPerSecond => "tokens/s",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::Bytes => "B",
            Unit::Megabytes => "MB",
            Unit::GigabytesPerSecond => "GB/s",
            Unit::GigaMacs => "GMAC/s",
            Unit::Times => "×",
            Unit::Percent => "%",
        }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), notes: Vec::new(), lines: Vec::new() }
    }

    /// Says something about all of it.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// A heading for each thing that lines differ in and for each figure, in the order of their first appearance.
    fn text(&self) -> String {
        let (mut keys, mut columns) = (Vec::new(), Vec::new());
        for line in &self.lines {
            keys.extend(line.of.iter().map(|(key, _)| *key));
            columns.extend(line.figures.iter().map(|figure| (figure.name, figure.unit)));
        }
        unique(&mut keys);
        unique(&mut columns);
        let mut drawn = Drawn::new();
        drawn.load_style(presets::ASCII_MARKDOWN);
        let headings = columns.iter().map(|(name, unit)| format!("{name}, {}", unit.name()));
        drawn.set_header(keys.iter().map(|key| (*key).to_owned()).chain(headings));
        for line in &self.lines {
            let of = keys
                .iter()
                .map(|key| line.of.iter().find(|(name, _)| name == key).map_or("".into(), |(_, v)| shown(v)));
            let cells = columns.iter().map(|column| {
                let figure = line.figures.iter().find(|figure| (figure.name, figure.unit) == *column);
                figure.map_or_else(String::new, |figure| cell(&figure.middle))
            });
            drawn.add_row(of.chain(cells).collect::<Vec<_>>());
        }
        for column in drawn.column_iter_mut().skip(keys.len()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{}\n\n{}\n", self.title, drawn.trim_fmt());
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        json!({ "title": self.title, "notes": self.notes, "lines": lines })
    }
}

impl Line {
    pub(crate) fn new() -> Self {
        Self { of: Vec::new(), figures: Vec::new() }
    }

    /// What was measured, or one of the things that tell it from the other lines.
    pub(crate) fn of(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.of.push((key, value.into()));
        self
    }

    /// What the samples come to; nothing where there are none.
    pub(crate) fn figure(mut self, name: &'static str, unit: Unit, samples: &Samples) -> Self {
        self.figures.extend(samples.middle().map(|middle| Figure { name, unit, middle }));
        self
    }

    /// A figure of which there is one.
    pub(crate) fn single(self, name: &'static str, unit: Unit, value: f64) -> Self {
        self.figure(name, unit, &[value].into_iter().collect())
    }

    fn json(&self) -> Value {
        let of: Map<String, Value> = self.of.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|Figure { name, unit, middle: Middle { low, median, high, count } }| {
                json!({ "name": name, "unit": unit.name(), "median": median, "low": low, "high": high, "samples": count })
            })
            .collect();
        json!({ "of": of, "figures": figures })
    }
}

/// Keeps the first of equal entries.
fn unique<T: PartialEq + Copy>(all: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::new();
    for entry in all.iter() {
        if !kept.contains(entry) {
            kept.push(*entry);
        }
    }
    *all = kept;
}

/// Numbers with separators, everything else as it is.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// As in 1,000,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The median, and the middle half where there is one.
fn cell(middle: &Middle) -> String {
    let digits = digits(middle.median);
    match middle.count {
        1 => format!("{:.digits$}", middle.median),
        _ => format!("{:.digits$} ({:.digits$} – {:.digits$})", middle.median, middle.low, middle.high),
    }
}

/// Places after the point that leave about four digits.
fn digits(value: f64) -> usize {
    match value.abs() {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    }
}

impl Report {
    /// A report with nothing in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn new(machine: Map<String, Value>, file: Option<PathBuf>) -> Result<Self, Failure> {
        let report = Self { machine, file, groups: Vec::new() };
        report.save()?;
        let text = |key: &str| report.machine.get(key).map_or_else(String::new, shown);
        let keys = ["date", "processor", "threads", "form", "recurve", "commit", "onnxruntime", "load_average"];
        let told: Vec<String> = keys.iter().map(|key| format!("{}: {}", key.replace('_', " "), text(key))).collect();
        println!("{}\n", told.join("\n"));
        Ok(report)
    }

    /// Prints the tables of a group and writes the file again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, group: Group, subject: Option<&Subject>, tables: Vec<Table>) -> Result<(), Failure> {
        for table in &tables {
            match subject {
                Some(subject) => println!("{}, {}: {}", subject.name(), group.name(), table.text()),
                None => println!("{}: {}", group.name(), table.text()),
            }
        }
        let tables: Vec<Value> = tables.iter().map(Table::json).collect();
        self.groups.push(json!({ "group": group.name(), "bundle": subject.map(Subject::json), "tables": tables }));
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut whole = self.machine.clone();
        whole.insert("groups".to_owned(), self.groups.clone().into());
        let text = serde_json::to_string_pretty(&whole)?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_share_the_columns_of_their_figures() {
        let samples: Samples = [10.0, 12.0, 11.0].into_iter().collect();
        let mut table = Table::new("decode").note("Two threads.");
        table.push(Line::new().of("position", 1_000_000).figure("ours", Unit::TokensPerSecond, &samples));
        table.push(Line::new().of("rows", 8).single("weights", Unit::Megabytes, 1.5));
        let text = table.text();
        assert!(text.contains("ours, tokens/s") && text.contains("weights, MB"), "{text}");
        assert!(
            text.contains("1,000,000") && text.contains("11.00 (10.50 – 11.50)") && text.contains("1.500"),
            "{text}"
        );
        let json = table.json();
        assert_eq!(json["lines"][0]["of"]["position"], 1_000_000);
        assert_eq!(json["lines"][0]["figures"][0]["median"], 11.0);
        assert_eq!(json["lines"][1]["figures"][0]["samples"], 1);
    }

    #[test]
    fn figures_of_nothing_are_left_out() {
        let line = Line::new().figure("ours", Unit::Percent, &Samples::default());
        assert!(line.figures.is_empty());
    }
}
