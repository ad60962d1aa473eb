//! The tables about fleets, as wide as the terminal is.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::HumanBytes;

use crate::fleet::event::{DevicePlan, DeviceReport};
use crate::fleet::plan::{Planned, Served};

/// Where there is no terminal, lines are as long as they need to be.
fn width() -> Option<u16> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| terminal.size().1)
}

/// A table with this head.
pub(crate) fn with_head(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(head.iter().copied());
    table
}

/// Numbers stand at the right.
pub(crate) fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A digest, as short as people need it.
pub(crate) fn digest(bundle: &str) -> String {
    bundle.trim_start_matches("sha256:").chars().take(8).collect()
}

/// A model that is served; `new` where it is the one that this is about.
fn served(serves: Option<&Served>, new: &str) -> String {
    match serves {
        None => "-".to_owned(),
        Some(served) if served.bundle == new => format!("{} (this)", served.model),
        Some(served) if served.model.is_empty() => digest(&served.bundle),
        Some(served) => format!("{} {}", served.model, digest(&served.bundle)),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.05 => "0 s".to_owned(),
        seconds if seconds < 9.95 => format!("{seconds:.1} s"),
        seconds if seconds < 600.0 => format!("{seconds:.0} s"),
        seconds if seconds < 36_000.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} h", seconds / 3600.0),
    }
}

/// What a device lacks, and what stands in its way. No column about memory where no device says anything about it.
pub(super) fn plan(devices: &[DevicePlan], bundle: &str) -> String {
    let of = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |bytes| HumanBytes(bytes).to_string());
    let known = devices.iter().filter_map(|device| device.planned.as_ref()).any(|planned| planned.memory.is_some());
    let mut head = vec!["device", "serves", "to send", "time", "disk free"];
    head.extend(known.then_some("memory"));
    let mut table = with_head(&head);
    for device in devices {
        let planned = device.planned.as_ref();
        let mut row = vec![
            device.device.clone(),
            planned.map_or_else(|| "?".to_owned(), |planned| served(planned.serves.as_ref(), bundle)),
            of(planned.map(|planned| planned.bytes)),
            planned.map_or_else(|| "?".to_owned(), |planned| time(planned.seconds)),
            of(planned.map(|planned| planned.disk_free)),
        ];
        let memory = |planned: &Planned| {
            planned.memory.map(|memory| format!("{} of {}", HumanBytes(memory), of(planned.memory_free)))
        };
        row.extend(known.then(|| planned.and_then(memory).unwrap_or_else(|| "?".to_owned())));
        table.add_row(row);
    }
    right(&mut table, &[2, 3, 4, 5]);
    table.trim_fmt() + &below(devices.iter().filter_map(|device| Some((device.device.as_str(), note(device)?))))
}

/// What there is to say of a device before it gets anything.
fn note(device: &DevicePlan) -> Option<String> {
    let planned = device.planned.as_ref();
    match (&device.skipped, planned) {
        (Some(reason), _) => Some(format!("will be skipped: {}", reason.words)),
        (None, Some(planned)) if planned.confirmed => Some("has proved the model already".to_owned()),
        (None, Some(Planned { went_back: Some(why), .. })) => Some(format!("went back from this model before: {why}")),
        (None, Some(Planned { in_turn: true, .. })) => {
            Some("has no memory for both: the model before ends before the new one is loaded".to_owned())
        }
        _ => None,
    }
}

/// Lines below a table: no column is wide enough for reasons.
fn below<'a>(notes: impl Iterator<Item = (&'a str, String)>) -> String {
    notes.map(|(device, words)| format!("\n {device}: {words}")).collect()
}

/// What is where, and why not everywhere the same.
pub(super) fn report(devices: &[DeviceReport], bundle: &str) -> String {
    let mut table = with_head(&["device", "", "serves", "sent"]);
    for device in devices {
        table.add_row([
            device.device.clone(),
            device.state.word().to_owned(),
            served(device.serves.as_ref(), bundle),
            HumanBytes(device.sent).to_string(),
        ]);
    }
    right(&mut table, &[3]);
    let why = |device: &DeviceReport| {
        device.reason.as_ref().map(|reason| format!("{} ({}): {}", device.state.word(), reason.cause, reason.words))
    };
    table.trim_fmt() + &below(devices.iter().filter_map(|device| Some((device.device.as_str(), why(device)?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::event::{Reason, State};

    #[test]
    fn times_are_as_exact_as_they_are_known() {
        for (seconds, expected) in
            [(0.0, "0 s"), (1.24, "1.2 s"), (59.6, "60 s"), (1800.0, "30 min"), (86_400.0, "24 h")]
        {
            assert_eq!(time(seconds), expected);
        }
    }

    #[test]
    fn reasons_stand_below_the_table() {
        let device = |device: &str, state, reason: Option<Reason>| DeviceReport {
            device: device.to_owned(),
            state,
            sent: 0,
            serves: Some(Served { model: "m".to_owned(), bundle: "sha256:new".to_owned() }),
            reason,
        };
        let devices = [
            device("gw-1", State::Failed, Some(Reason::new("went_back", "it crashed"))),
            device("gw-2", State::Proved, None),
        ];
        let text = report(&devices, "sha256:new");
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(rows[1].contains("gw-2") && rows[1].contains("m (this)"), "{text}");
        assert_eq!(rows[2], " gw-1: failed (went_back): it crashed");
    }
}
