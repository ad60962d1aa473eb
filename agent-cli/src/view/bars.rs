//! Bars on a terminal: one for each device that is on its way, one for all; what is worth keeping scrolls above them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::words;
use crate::exit::Failure;
use crate::fleet::event::{Event, State, View};
use crate::output;

/// With more devices than these only those on their way have bars.
const ALL: usize = 20;
/// Widest name in front of a bar.
const NAME: usize = 20;
/// How often a bar that only waits is drawn.
const TICK: Duration = Duration::from_millis(250);

/// Shows bars.
pub(super) struct Bars {
    all: MultiProgress,
    devices: HashMap<String, ProgressBar>,
    total: Option<ProgressBar>,
    /// Widest name, within bounds.
    name: usize,
    count: usize,
    wave: (usize, usize),
    /// Of each device: bytes to send in all, and how many of them are left.
    bytes: HashMap<String, (u64, u64)>,
    /// Devices that proved the model, and serve it as far as is known.
    done: HashSet<String>,
    failed: usize,
    skipped: usize,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            devices: HashMap::new(),
            total: None,
            name: 0,
            count: 0,
            wave: (0, 0),
            bytes: HashMap::new(),
            done: HashSet::new(),
            failed: 0,
            skipped: 0,
        }
    }

    /// Prints above the bars.
    fn print(&self, text: &str) -> Result<(), Failure> {
        self.all.suspend(|| output::line(text))
    }

    fn style(&self, rest: &str) -> ProgressStyle {
        let template = format!("{{prefix:{}}} {rest}", self.name);
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
    }

    fn sending(&self) -> ProgressStyle {
        self.style("{msg:11} [{wide_bar}] {bytes:>10} of {total_bytes:10} {eta:>4}")
    }

    fn waiting(&self) -> ProgressStyle {
        self.style("{msg:11} {elapsed:>4}")
    }

    fn ended(&self) -> ProgressStyle {
        self.style("{wide_msg}")
    }

    fn bar(&mut self, device: &str) -> ProgressBar {
        if let Some(bar) = self.devices.get(device) {
            return bar.clone();
        }
        let bar = ProgressBar::new(0);
        let bar = match &self.total {
            Some(total) => self.all.insert_before(total, bar),
            None => self.all.add(bar),
        };
        bar.set_prefix(short(device));
        self.devices.insert(device.to_owned(), bar.clone());
        bar
    }

    fn state(&mut self, device: &str, state: State, bytes: Option<u64>, reason: Option<&str>) -> Result<(), Failure> {
        let bar = self.bar(device);
        let mut printed = Ok(());
        match state {
            State::Sending => {
                bar.set_style(self.sending());
                bar.set_length(bytes.unwrap_or(0));
                bar.set_position(0);
                bar.set_message(state.word());
            }
            State::Activating | State::Watched => {
                bar.reset_elapsed();
                bar.set_style(self.waiting());
                bar.set_message(state.word());
                bar.enable_steady_tick(TICK);
            }
            state => printed = self.end(&bar, device, state, reason),
        }
        if let Some(bytes) = bytes {
            self.left(device, bytes);
        }
        self.sum();
        printed
    }

    fn end(&mut self, bar: &ProgressBar, device: &str, state: State, reason: Option<&str>) -> Result<(), Failure> {
        bar.disable_steady_tick();
        match state {
            State::Proved => drop(self.done.insert(device.to_owned())),
            State::Failed => {
                self.failed += 1;
                self.done.remove(device);
            }
            State::Skipped => self.skipped += 1,
            _ => {}
        }
        // What it has not got by now it does not get in this run.
        if let Some((all, left)) = self.bytes.get_mut(device) {
            *all -= std::mem::take(left);
        }
        let text = reason.map_or_else(|| state.word().to_owned(), |reason| format!("{}: {reason}", state.word()));
        if self.count <= ALL {
            bar.set_style(self.ended());
            bar.finish_with_message(text.replace('\n', " "));
            return Ok(());
        }
        bar.finish_and_clear();
        self.devices.remove(device);
        match reason {
            Some(_) => self.print(&format!("{device}: {text}")),
            None => Ok(()),
        }
    }

    /// What all devices together have got, and how many are through.
    fn sum(&self) {
        let Some(total) = &self.total else { return };
        let Self { wave: (wave, of), done, failed, skipped, .. } = self;
        let skipped = if *skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        total.set_message(format!("wave {wave} of {of}: {} done, {failed} failed{skipped}", done.len()));
        let (all, left) = self.bytes.values().fold((0, 0), |(all, left), bytes| (all + bytes.0, left + bytes.1));
        total.set_length(all);
        total.set_position(all - left);
    }

    fn left(&mut self, device: &str, left: u64) {
        if let Some(bytes) = self.bytes.get_mut(device) {
            bytes.0 = bytes.0.max(left);
            bytes.1 = left;
        }
    }

    fn begin(&mut self, wave: usize, of: usize) {
        self.wave = (wave, of);
        if self.total.is_none() {
            let total = self.all.add(ProgressBar::new(0));
            total.set_style(self.style("[{wide_bar}] {bytes} of {total_bytes}, {msg}"));
            total.set_prefix("all");
            self.total = Some(total);
        }
        self.sum();
    }

    /// The bars are gone, and the text is what stays.
    fn close(&mut self) {
        for bar in self.devices.values() {
            bar.finish_and_clear();
        }
        self.devices.clear();
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}

impl View for Bars {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Plan { devices, .. } => {
                let widest = devices.iter().map(|device| device.device.chars().count()).max().unwrap_or(0);
                self.name = widest.clamp(3, NAME);
                self.count = devices.len();
                self.skipped = devices.iter().filter(|device| device.skipped.is_some()).count();
                for device in devices.iter().filter(|device| device.skipped.is_none()) {
                    let Some(planned) = &device.planned else { continue };
                    if planned.confirmed {
                        self.done.insert(device.device.clone());
                    }
                    self.bytes.insert(device.device.clone(), (planned.bytes, planned.bytes));
                }
            }
            Event::DeviceState { device, state, bytes, reason } => {
                return self.state(device, *state, *bytes, reason.as_ref().map(|reason| reason.words.as_str()));
            }
            Event::Transferred { device, bytes, of } => {
                if let Some(bar) = self.devices.get(device) {
                    bar.set_position(*bytes);
                }
                self.left(device, of.saturating_sub(*bytes));
                self.sum();
                return Ok(());
            }
            Event::Finished { .. } => {
                self.close();
                return Ok(());
            }
            Event::WaveStarted { wave, of, .. } => self.begin(*wave, *of),
            Event::Begun { .. } | Event::Retry { .. } | Event::Gate { .. } | Event::Report { .. } => {}
        }
        words::said(event).map_or(Ok(()), |text| self.print(&text))
    }
}

/// A name, cut where it is too long to stand in front of a bar.
fn short(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}
