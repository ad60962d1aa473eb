//! The columns of the table: their order, their width, what stands in them, and how devices are put in order by them.

use std::cmp::Ordering;

use super::device::Row;
use super::words::{self, width};

/// A column, in the order in which they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Name,
    State,
    Model,
    Made,
    Read,
    FirstP50,
    FirstP95,
    EachP50,
    Queue,
    Rows,
    Heat,
    Cpu,
    Memory,
    Alarms,
}

/// What a column is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// The column.
    pub(crate) column: Column,
    /// Its head.
    pub(crate) title: &'static str,
    /// The key that sorts by it.
    pub(crate) key: char,
    /// Fewest cells that it is of use with.
    least: usize,
    /// Where there is no room for all, those with the lowest rank come first.
    rank: u8,
    /// What it means.
    pub(crate) doc: &'static str,
}

const fn about(column: Column, title: &'static str, key: char, (least, rank): (usize, u8), doc: &'static str) -> About {
    About { column, title, key, least, rank, doc }
}

/// All columns.
pub(crate) const COLUMNS: [About; 14] = [
    about(Column::Name, "name", 'n', (12, 0), "as the inventory has it"),
    about(Column::State, "state", 's', (12, 1), "the worst first"),
    about(Column::Model, "model", 'm', (12, 11), "that is served"),
    about(Column::Made, "tok/s", 'o', (5, 3), "tokens made a second"),
    about(Column::Read, "read/s", 'i', (6, 12), "prompt tokens read a second"),
    about(Column::FirstP50, "ttft", 'f', (5, 4), "first token, median"),
    about(Column::FirstP95, "ttft95", 'F', (6, 6), "95 of 100 come sooner"),
    about(Column::EachP50, "tpot", 't', (5, 13), "time per token, median"),
    about(Column::Queue, "queue", 'w', (5, 5), "that wait / that may"),
    about(Column::Rows, "rows", 'a', (5, 7), "computed / at most"),
    about(Column::Heat, "temp", 'h', (4, 8), "hottest sensor, Celsius"),
    about(Column::Cpu, "cpu", 'c', (4, 9), "share of all cores"),
    about(Column::Memory, "mem", 'e', (4, 10), "share of its memory"),
    about(Column::Alarms, "alarms", 'l', (14, 2), "most of them first"),
];

/// By what devices are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    /// The column.
    pub(crate) by: Column,
    /// The other way round than usual.
    pub(crate) reversed: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self { by: Column::Name, reversed: false }
    }
}

impl Column {
    /// What it is like.
    pub(crate) fn about(self) -> &'static About {
        COLUMNS.iter().find(|about| about.column == self).unwrap_or(&COLUMNS[0])
    }

    /// The one so many places further, round and round.
    pub(crate) fn beside(self, forward: bool) -> Self {
        let place = COLUMNS.iter().position(|about| about.column == self).unwrap_or(0);
        let step = if forward { 1 } else { COLUMNS.len() - 1 };
        COLUMNS[(place + step) % COLUMNS.len()].column
    }

    /// Numbers stand at the right.
    pub(crate) fn is_number(self) -> bool {
        !matches!(self, Self::Name | Self::State | Self::Model | Self::Alarms)
    }

    /// What a device has in it.
    pub(crate) fn cell(self, row: &Row) -> String {
        let of = |pair: Option<(u32, u32)>| {
            pair.map_or_else(|| words::NONE.to_owned(), |(value, most)| format!("{value}/{most}"))
        };
        match self {
            Self::Name => row.name.clone(),
            Self::State => row.state.word().to_owned(),
            Self::Model => row.model.clone(),
            Self::Made => words::number(row.made),
            Self::Read => words::number(row.read),
            Self::FirstP50 => words::first_token(row.first_p50),
            Self::FirstP95 => words::first_token(row.first_p95),
            Self::EachP50 => words::each_token(row.each_p50),
            Self::Queue => of(row.queue),
            Self::Rows => of(row.rows),
            Self::Heat => words::degrees(row.celsius),
            Self::Cpu => words::percent(row.cpu),
            Self::Memory => words::percent(row.memory),
            Self::Alarms => row.alarms.join(", "),
        }
    }

    fn value(self, row: &Row) -> Option<f64> {
        match self {
            Self::Name | Self::State | Self::Model => None,
            Self::Made => row.made,
            Self::Read => row.read,
            Self::FirstP50 => row.first_p50,
            Self::FirstP95 => row.first_p95,
            Self::EachP50 => row.each_p50,
            Self::Queue => row.queue.map(|(waiting, _)| waiting.into()),
            Self::Rows => row.rows.map(|(active, _)| active.into()),
            Self::Heat => row.celsius,
            Self::Cpu => row.cpu,
            Self::Memory => row.memory,
            Self::Alarms => Some(row.alarms.len() as f64 + f64::from(u8::from(row.why.is_some()))),
        }
    }
}

/// Puts devices in order: names from A, states from the worst, numbers from the greatest; what is not known comes last, and
/// those that are alike stand by name.
pub(crate) fn sort(rows: &mut [Row], sort: Sort) {
    let turned = |order: Ordering| if sort.reversed { order.reverse() } else { order };
    rows.sort_by(|a, b| {
        let order = match sort.by {
            Column::Name => turned(a.name.cmp(&b.name)),
            Column::State => turned(a.state.cmp(&b.state)),
            Column::Model => last(a.model.is_empty(), b.model.is_empty(), turned(a.model.cmp(&b.model))),
            by => {
                let (a, b) = (by.value(a), by.value(b));
                let values = a.zip(b).map_or(Ordering::Equal, |(a, b)| b.total_cmp(&a));
                last(a.is_none(), b.is_none(), turned(values))
            }
        };
        order.then_with(|| a.name.cmp(&b.name)).then(a.place.cmp(&b.place))
    });
}

fn last(a_unknown: bool, b_unknown: bool, order: Ordering) -> Ordering {
    a_unknown.cmp(&b_unknown).then(order)
}

/// Whether a device is one that the filter means: its name, its model, its state or one of its alarms contains the text.
pub(crate) fn matches(row: &Row, filter: &str) -> bool {
    let filter = filter.to_lowercase();
    let contains = |text: &str| text.to_lowercase().contains(&filter);
    contains(&row.name)
        || contains(&row.model)
        || contains(row.state.word())
        || row.alarms.iter().any(|it| contains(it))
}

/// Which columns are shown in so many cells, and how wide each is. A cell stays free between two.
pub(crate) fn layout(cells: usize, rows: &[Row]) -> Vec<(Column, usize)> {
    let mut ranked: Vec<&About> = COLUMNS.iter().collect();
    ranked.sort_by_key(|about| about.rank);
    let mut used = 0;
    let mut shown: Vec<Column> = Vec::new();
    for about in ranked {
        let more = about.least + usize::from(used > 0);
        if used + more > cells && used > 0 {
            continue;
        }
        used += more;
        shown.push(about.column);
    }
    let mut columns: Vec<(Column, usize)> = COLUMNS
        .iter()
        .filter(|about| shown.contains(&about.column))
        .map(|about| (about.column, about.least.min(cells)))
        .collect();
    let mut free = cells.saturating_sub(used);
    // Names first, then models; the rest is for what is wrong.
    for (column, own) in &mut columns {
        let longest = match column {
            Column::Name => rows.iter().map(|row| width(&row.name)).max(),
            Column::Model => rows.iter().map(|row| width(&row.model)).max(),
            _ => None,
        };
        let more = longest.unwrap_or(0).min(32).saturating_sub(*own).min(free);
        *own += more;
        free -= more;
    }
    if let Some((_, own)) = columns.iter_mut().find(|(column, _)| *column == Column::Alarms) {
        *own += free;
    }
    columns
}
