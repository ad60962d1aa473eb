//! The last stage of a token's way through the engine: to text, past the stop strings, to the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use recurve_text::Detokenizer;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::job::{Delta, Event};
use super::sample::Choice;
use super::stop::{Filtered, StopFilter};

/// Where a job's answer goes.
#[derive(Debug)]
pub(super) struct Emitter {
    events: Sender<Event>,
    /// Places that are kept free: the last text and the end are never lost, however slowly the caller reads.
    last_text: Option<OwnedPermit<Event>>,
    end: Option<OwnedPermit<Event>>,
    parked: Arc<AtomicBool>,
    detokenizer: Option<Detokenizer>,
    stops: StopFilter,
    /// What the caller has not been told yet.
    unsent: Delta,
}

/// Whether the caller keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// There is room for more.
    Ready,
    /// The caller does not read: its row has to wait.
    Full,
    /// The caller is gone.
    Gone,
}

impl Emitter {
    /// None if the caller is gone already.
    pub(super) fn new(
        events: Sender<Event>,
        parked: Arc<AtomicBool>,
        detokenizer: Option<Detokenizer>,
        stops: &[String],
    ) -> Option<Self> {
        // A fresh channel has room for these: `admission::LAST_EVENTS`.
        let last_text = events.clone().try_reserve_owned().ok()?;
        let end = events.clone().try_reserve_owned().ok()?;
        Some(Self {
            events,
            last_text: Some(last_text),
            end: Some(end),
            parked,
            detokenizer,
            stops: StopFilter::new(stops),
            unsent: Delta::default(),
        })
    }

    /// Takes a token; gives the stop string that it completed, after which nothing more may come.
    pub(super) fn push(&mut self, choice: Choice) -> Option<String> {
        let text = self.detokenizer.as_mut().map(|detokenizer| detokenizer.push(choice.token)).unwrap_or_default();
        self.unsent.tokens.push(choice.token);
        self.unsent.logprobs.extend(choice.logprobs);
        let filtered = self.stops.push(&text);
        self.keep(filtered)
    }

    /// Sends what there is, if there is room.
    pub(super) fn send(&mut self) -> Flow {
        if self.events.is_closed() {
            return Flow::Gone;
        }
        if self.unsent == Delta::default() {
            return Flow::Ready;
        }
        match self.events.try_send(Event::Delta(std::mem::take(&mut self.unsent))) {
            Ok(()) => {
                self.parked.store(false, Ordering::Release);
                Flow::Ready
            }
            Err(TrySendError::Closed(_)) => Flow::Gone,
            Err(TrySendError::Full(event)) => {
                if let Event::Delta(delta) = event {
                    self.unsent = delta;
                }
                self.parked.store(true, Ordering::Release);
                Flow::Full
            }
        }
    }

    /// Whether the caller is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Ends the text: what was held back leaves, unless it is a stop string after all, which is then given.
    pub(super) fn flush(&mut self) -> Option<String> {
        let text = self.detokenizer.as_mut().map(Detokenizer::flush).unwrap_or_default();
        let filtered = self.stops.push(&text);
        if let Some(stop) = self.keep(filtered) {
            return Some(stop);
        }
        let filtered = self.stops.flush();
        self.keep(filtered)
    }

    /// Sends the last text and the end.
    pub(super) fn finish(mut self, end: Event) {
        if self.unsent != Delta::default()
            && let Some(place) = self.last_text.take()
        {
            place.send(Event::Delta(self.unsent));
        }
        if let Some(place) = self.end.take() {
            place.send(end);
        }
    }

    fn keep(&mut self, filtered: Filtered) -> Option<String> {
        match filtered {
            Filtered::Released(text) => {
                self.unsent.text.push_str(&text);
                None
            }
            Filtered::Stopped { text, stop } => {
                self.unsent.text.push_str(&text);
                Some(stop)
            }
        }
    }
}
