//! A device as it was heard of last, and the line that is shown of it.

use std::time::Duration;

use recurve_proto::v1::{Histogram, LogLine, WatchNodeResponse};
use serde::Serialize;

use super::rates::{Rates, each_token, first_token};

/// From this share of failed requests on there is an alarm.
const ERRORS: f64 = 0.01;
/// Log lines that are kept of a device.
const LINES: usize = 200;

/// Whether anything is heard of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Link {
    /// It is called for the first time.
    #[default]
    Calling,
    /// It tells how it is.
    Up,
    /// It cannot be reached, or it refuses to tell.
    Away {
        /// By this program's clock.
        since: Duration,
        /// The same by the clock on the wall.
        clock: String,
        /// Why.
        why: String,
        /// It answers, but does not tell.
        refuses: bool,
    },
}

/// What is known of a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    /// By the inventory, or its address.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: String,
    /// Whether it is heard.
    pub(crate) link: Link,
    /// What it told last.
    pub(crate) told: Option<WatchNodeResponse>,
    /// What that grew by.
    pub(crate) rates: Rates,
    /// Its newest log lines at WARN and above, as far as they were asked for.
    pub(crate) lines: Vec<LogLine>,
    /// Why there are no log lines; empty where nothing is wrong.
    pub(crate) no_lines: String,
}

/// News of a device.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// How it is.
    Told(Box<WatchNodeResponse>),
    /// It is not heard.
    Away {
        /// By the clock on the wall.
        clock: String,
        /// Why.
        why: String,
        /// It answers, but does not tell.
        refuses: bool,
    },
    /// Its log is read from the beginning.
    LogBegins,
    /// It logged this.
    Logged(Vec<LogLine>),
    /// Its log cannot be read.
    NoLog(String),
}

/// How a device is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    OutOfReach,
    Refuses,
    NoModel,
    Loading,
    Drained,
    Draining,
    Probation,
    Serving,
    Asked,
}

impl State {
    /// In words.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::OutOfReach => "out of reach",
            Self::Refuses => "refuses",
            Self::NoModel => "no model",
            Self::Loading => "loading",
            Self::Drained => "drained",
            Self::Draining => "draining",
            Self::Probation => "probation",
            Self::Serving => "serving",
            Self::Asked => "asked",
        }
    }

    /// Requests are answered.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Probation | Self::Serving)
    }
}

/// A device's figures as they are shown, compared and added up. None: it does not tell, or nothing happened.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its place in the fleet.
    pub(crate) place: usize,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) model: String,
    /// Tokens made and read a second.
    pub(crate) made: Option<f64>,
    pub(crate) read: Option<f64>,
    /// Seconds.
    pub(crate) first_p50: Option<f64>,
    pub(crate) first_p95: Option<f64>,
    pub(crate) each_p50: Option<f64>,
    /// Requests that wait, of how many that may; rows that are computed, of how many.
    pub(crate) queue: Option<(u32, u32)>,
    pub(crate) rows: Option<(u32, u32)>,
    /// Of the hottest sensor.
    pub(crate) celsius: Option<f64>,
    /// 0 to 1.
    pub(crate) cpu: Option<f64>,
    pub(crate) memory: Option<f64>,
    pub(crate) alarms: Vec<String>,
    /// Why nothing is known of it.
    pub(crate) why: Option<(Duration, String)>,
    /// What its percentiles are of.
    pub(crate) first: Histogram,
    pub(crate) each: Histogram,
}

impl Device {
    /// A device of which nothing is known yet.
    pub(crate) fn new(name: String, address: String) -> Self {
        Self { name, address, ..Self::default() }
    }

    /// Takes news; tells whether it became another one to look at.
    pub(crate) fn take(&mut self, at: Duration, news: News) -> bool {
        match news {
            News::Told(told) => {
                let other = self.link != Link::Up;
                self.rates.take(at, &told);
                self.told = Some(*told);
                self.link = Link::Up;
                other
            }
            News::Away { clock, why, refuses } => {
                let (since, clock) = match &self.link {
                    Link::Away { since, clock, .. } => (*since, clock.clone()),
                    _ => (at, clock),
                };
                let link = Link::Away { since, clock, why, refuses };
                std::mem::replace(&mut self.link, link.clone()) != link
            }
            News::LogBegins => {
                self.lines.clear();
                self.no_lines.clear();
                false
            }
            News::Logged(lines) => {
                self.lines.extend(lines);
                let more = self.lines.len().saturating_sub(LINES);
                self.lines.drain(..more);
                true
            }
            News::NoLog(why) => {
                self.no_lines = why;
                true
            }
        }
    }

    /// How it is.
    pub(crate) fn state(&self) -> State {
        match (&self.link, &self.told) {
            (Link::Away { refuses: true, .. }, _) => State::Refuses,
            (Link::Away { .. }, _) => State::OutOfReach,
            (Link::Calling, _) | (Link::Up, None) => State::Asked,
            (Link::Up, Some(told)) => {
                let node = told.state.clone().unwrap_or_default();
                match told {
                    told if told.draining && told.waiting + told.active_rows == 0 => State::Drained,
                    told if told.draining => State::Draining,
                    _ if node.serving && node.probation.is_some() => State::Probation,
                    _ if node.serving => State::Serving,
                    told if told.loading => State::Loading,
                    _ => State::NoModel,
                }
            }
        }
    }

    /// What is wrong with it, the share of failed requests included.
    pub(crate) fn alarms(&self) -> Vec<String> {
        if self.link != Link::Up {
            return Vec::new();
        }
        let mut alarms = self.told.as_ref().map(|told| told.alarms.clone()).unwrap_or_default();
        let window = self.rates.window();
        let share = window.errors as f64 / window.requests.max(1) as f64;
        if share >= ERRORS {
            alarms.push(format!("errors {:.0}%", share.min(1.0) * 100.0));
        }
        alarms
    }

    /// Its line. `whole_life`: percentiles since its daemon started, where it has just been looked at.
    pub(crate) fn row(&self, place: usize, whole_life: bool) -> Row {
        let told = self.told.as_ref().filter(|_| self.link == Link::Up);
        let window = if whole_life { self.rates.life() } else { self.rates.window() };
        let (first, each) = if told.is_some() { (window.first, window.each) } else { Default::default() };
        let tokens = told.and_then(|_| self.rates.tokens());
        let hottest = |told: &WatchNodeResponse| {
            told.temperatures.iter().map(|sensor| f64::from(sensor.celsius)).max_by(f64::total_cmp)
        };
        let memory = |told: &WatchNodeResponse| (told.memory > 0).then(|| told.memory_used as f64 / told.memory as f64);
        Row {
            place,
            name: self.name.clone(),
            state: self.state(),
            model: told.map(|told| told.model.clone()).unwrap_or_default(),
            made: tokens.map(|(_, made)| made),
            read: tokens.map(|(read, _)| read),
            first_p50: first_token(&first, 0.5),
            first_p95: first_token(&first, 0.95),
            each_p50: each_token(&each, 0.5),
            queue: told.map(|told| (told.waiting, told.queue)),
            rows: told.map(|told| (told.active_rows, told.rows)),
            celsius: told.and_then(hottest),
            cpu: told.map(|told| f64::from(told.cpu)),
            memory: told.and_then(memory),
            alarms: self.alarms(),
            why: match &self.link {
                Link::Away { since, why, .. } => Some((*since, why.clone())),
                Link::Calling | Link::Up => None,
            },
            first,
            each,
        }
    }
}

#[cfg(test)]
mod tests {
    use recurve_proto::v1::NodeState;

    use super::*;

    #[test]
    fn a_state_is_the_first_that_holds() {
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let serving = NodeState { serving: true, ..NodeState::default() };
        let probation = NodeState { probation: second, ..serving.clone() };
        let told = |state: &NodeState, draining, active_rows, loading| WatchNodeResponse {
            state: Some(state.clone()),
            draining,
            active_rows,
            loading,
            ..WatchNodeResponse::default()
        };
        let nothing = NodeState::default();
        for (told, expected) in [
            (told(&serving, false, 1, false), State::Serving),
            (told(&probation, false, 0, false), State::Probation),
            (told(&probation, true, 1, false), State::Draining),
            (told(&serving, true, 0, false), State::Drained),
            (told(&nothing, false, 0, true), State::Loading),
            (told(&nothing, false, 0, false), State::NoModel),
        ] {
            let mut device = Device::default();
            assert_eq!(device.state(), State::Asked);
            device.take(Duration::ZERO, News::Told(Box::new(told)));
            assert_eq!(device.state(), expected);
            for (refuses, expected) in [(false, State::OutOfReach), (true, State::Refuses)] {
                let (clock, why) = (String::new(), String::new());
                device.take(Duration::ZERO, News::Away { clock, why, refuses });
                assert_eq!(device.state(), expected);
            }
        }
    }
}
