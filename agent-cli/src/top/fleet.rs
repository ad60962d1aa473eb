//! The whole view: the devices, what is looked at, and what an action does to that.

use std::time::Duration;

use recurve_proto::v1::Histogram;
use recurve_telemetry::histogram;

use super::device::{Device, News, Row};
use super::keys::Action;
use super::sort::{self, Sort};

/// What is watched, and how it is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fleet {
    devices: Vec<Device>,
    /// What is shown while the view stands still.
    frozen: Option<Vec<Device>>,
    /// By what devices are in order.
    pub(crate) sort: Sort,
    /// What is looked for; empty: everything.
    pub(crate) filter: String,
    /// The filter is being written.
    pub(crate) typing: bool,
    /// The keys are explained.
    pub(crate) help: bool,
    /// The device that is marked; none: the first line, whichever it is.
    selected: Option<usize>,
    /// Its page is open.
    page: bool,
}

/// What an action asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Go,
    /// End.
    Quit,
    /// Wait until the shell has it go on.
    Suspend,
}

/// The figures of a whole fleet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) devices: usize,
    /// Those that answer requests.
    pub(crate) up: usize,
    /// Tokens made and read a second.
    pub(crate) made: f64,
    pub(crate) read: f64,
    pub(crate) waiting: u32,
    pub(crate) active: u32,
    pub(crate) rows: u32,
    pub(crate) alarms: usize,
    /// Over all devices.
    pub(crate) first: Histogram,
    pub(crate) each: Histogram,
}

impl Fleet {
    /// These devices, of which nothing is known yet.
    pub(crate) fn new(devices: Vec<Device>) -> Self {
        Self { devices, ..Self::default() }
    }

    /// Takes news of a device; tells whether they should be seen soon.
    pub(crate) fn take(&mut self, place: usize, at: Duration, news: News) -> bool {
        self.devices.get_mut(place).is_some_and(|device| device.take(at, news))
    }

    /// The devices as they are shown.
    pub(crate) fn shown(&self) -> &[Device] {
        self.frozen.as_deref().unwrap_or(&self.devices)
    }

    /// The view stands still.
    pub(crate) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// The device whose page is open.
    pub(crate) fn page(&self) -> Option<usize> {
        self.selected.filter(|place| self.page && *place < self.devices.len())
    }

    /// A line of every device.
    pub(crate) fn all(&self) -> Vec<Row> {
        self.shown().iter().enumerate().map(|(place, device)| device.row(place, false)).collect()
    }

    /// Of these lines the ones that are looked for, in order.
    pub(crate) fn listed(&self, mut rows: Vec<Row>) -> Vec<Row> {
        rows.retain(|row| self.filter.is_empty() || sort::matches(row, &self.filter));
        sort::sort(&mut rows, self.sort);
        rows
    }

    /// Which of the listed lines is marked.
    pub(crate) fn marked(&self, rows: &[Row]) -> usize {
        rows.iter().position(|row| Some(row.place) == self.selected).unwrap_or(0)
    }

    /// Does it. `height`: how many lines the table has on the screen.
    pub(crate) fn act(&mut self, action: Action, height: usize) -> Next {
        match action {
            Action::Quit => return Next::Quit,
            Action::Suspend => return Next::Suspend,
            Action::Up => self.walk(-1),
            Action::Down => self.walk(1),
            Action::PageUp => self.walk(-signed(height)),
            Action::PageDown => self.walk(signed(height)),
            Action::First => self.walk(isize::MIN),
            Action::Last => self.walk(isize::MAX),
            Action::SortBefore => self.sort(Sort { by: self.sort.by.beside(false), reversed: false }),
            Action::SortAfter => self.sort(Sort { by: self.sort.by.beside(true), reversed: false }),
            Action::SortBy(by) => self.sort(Sort { by, reversed: false }),
            Action::Reverse => self.sort(Sort { reversed: !self.sort.reversed, ..self.sort }),
            Action::Find => {
                self.filter.clear();
                self.typing = true;
            }
            Action::Type(character) => self.filter.push(character),
            Action::Erase => drop(self.filter.pop()),
            Action::Found => self.typing = false,
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Help => self.help = !self.help,
            Action::Pause => {
                self.frozen = if self.frozen.is_some() { None } else { Some(self.devices.clone()) };
            }
        }
        Next::Go
    }

    /// Puts the devices in another order, and looks at the first of it.
    fn sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.selected = None;
    }

    /// Marks another line.
    fn walk(&mut self, lines: isize) {
        let rows = self.listed(self.all());
        let place = self.marked(&rows).saturating_add_signed(lines).min(rows.len().saturating_sub(1));
        if let Some(row) = rows.get(place) {
            self.selected = Some(row.place);
        }
    }

    fn open(&mut self) {
        let rows = self.listed(self.all());
        if let Some(row) = rows.get(self.marked(&rows)) {
            self.selected = Some(row.place);
            self.page = true;
        }
    }

    /// Leaves what was opened last.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.page {
            self.page = false;
        } else {
            self.typing = false;
            self.filter.clear();
        }
    }
}

fn signed(height: usize) -> isize {
    isize::try_from(height.max(1)).unwrap_or(isize::MAX)
}

/// Adds up the lines of a fleet.
pub(crate) fn totals(rows: &[Row]) -> Totals {
    let mut totals = Totals { devices: rows.len(), ..Totals::default() };
    for row in rows {
        totals.up += usize::from(row.state.is_up());
        totals.made += row.made.unwrap_or(0.0);
        totals.read += row.read.unwrap_or(0.0);
        totals.waiting += row.queue.map_or(0, |(waiting, _)| waiting);
        totals.active += row.rows.map_or(0, |(active, _)| active);
        totals.rows += row.rows.map_or(0, |(_, rows)| rows);
        totals.alarms += row.alarms.len();
        histogram::add(&mut totals.first, &row.first);
        histogram::add(&mut totals.each, &row.each);
    }
    totals
}
