//! The bounded queue in front of the engine, and the way back: a ticket that streams the answer and cancels by being
//! dropped.

mod queue;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use recurve_runtime::Terminator;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::engine::clock::Clock;
use crate::engine::job::{ClientId, Event, Failure, Job};
use queue::Queue;

/// Events that a caller may leave unread before its row is parked.
const UNREAD_EVENTS: usize = 64;
/// Kept free in a ticket's channel for the last text and the end, which must always find room.
pub(crate) const LAST_EVENTS: usize = 2;
/// What a caller is told to wait when nothing is known yet of how long jobs take.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// When the daemon stops, what waits is answered yet where all of it is likely to have its turn within this time and its end before
/// the deadline, so that nobody loses a place to the next process; where not, it is told at once to ask that one.
const LAST_TURNS: Duration = Duration::from_secs(2);
/// Bounds of what a caller is told to wait.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// The queue, shared by the services and the engine.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    slots: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue<Waiting>,
    /// Something happened since the engine last looked.
    news: bool,
    /// No more jobs; those that run have until then,
    closed: Option<Instant>,
    /// and what waits has until then to be taken.
    last_turn: Option<Instant>,
    /// Because of another model, not of the daemon's end.
    replaced: bool,
    /// How long a job occupies the engine, smoothed.
    typical: Option<Duration>,
    tickets: u64,
    terminator: Option<Terminator>,
}

/// A job on its way to the engine, with its caller's end of the channel.
#[derive(Debug)]
pub struct Waiting {
    /// What is to be done.
    pub job: Job,
    /// Tells runs for this job from others.
    pub tag: u64,
    /// Where events go; closed when the caller dropped its ticket.
    pub events: mpsc::Sender<Event>,
    /// Set while the job's row waits for the caller to read.
    pub parked: Arc<AtomicBool>,
    /// When things happened to the job.
    pub clock: Arc<Clock>,
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Every place is taken.
    QueueFull {
        /// Jobs that wait.
        waiting: usize,
        /// Places.
        limit: usize,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The daemon stops.
    ShuttingDown,
    /// Another model has taken this one's place.
    Replaced,
}

/// A job's place; dropping it cancels the job wherever it is, and frees its place or its slot.
#[derive(Debug)]
pub struct Ticket {
    id: Uuid,
    tag: u64,
    events: mpsc::Receiver<Event>,
    parked: Arc<AtomicBool>,
    clock: Arc<Clock>,
    admission: Arc<Admission>,
}

impl Admission {
    /// A queue with this many places, in front of an engine with this many slots.
    pub fn new(limit: usize, slots: usize) -> Arc<Self> {
        Arc::new(Self { limit, slots, state: Mutex::default(), wake: Condvar::new() })
    }

    /// Takes a job.
    ///
    /// # Errors
    /// Every place is taken, or the daemon stops.
    pub fn submit(self: &Arc<Self>, job: Job) -> Result<Ticket, Refusal> {
        let (sender, events) = mpsc::channel(UNREAD_EVENTS + LAST_EVENTS);
        let parked = Arc::new(AtomicBool::new(false));
        let id = job.id;
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(if state.replaced { Refusal::Replaced } else { Refusal::ShuttingDown });
        }
        let waiting = state.queue.len();
        if waiting >= self.limit {
            return Err(Refusal::QueueFull {
                waiting,
                limit: self.limit,
                retry_after: state.typical.unwrap_or(FIRST_GUESS).clamp(*RETRY.start(), *RETRY.end()),
            });
        }
        state.tickets += 1;
        let tag = state.tickets;
        let (client, priority) = (job.client.clone(), job.priority);
        let clock = Arc::new(Clock::new(job.accepted));
        let waiting = Waiting { job, tag, events: sender, parked: Arc::clone(&parked), clock: Arc::clone(&clock) };
        state.queue.push(client, priority, waiting);
        self.notify(&mut state);
        drop(state);
        Ok(Ticket { id, tag, events, parked, clock, admission: Arc::clone(self) })
    }

    /// Refuses new jobs, and tells the engine until when it may finish what runs. What waits is still taken if that is soon done
    /// and ends if not.
    pub(crate) fn close(&self, deadline: Instant) {
        let mut state = self.lock();
        let now = Instant::now();
        let last_turn = deadline.min(now + LAST_TURNS);
        let soon = state
            .last_turn_in(self.slots)
            .is_some_and(|(begins, ends)| now + begins < last_turn && now + ends < deadline);
        state.closed = Some(deadline);
        if soon {
            state.last_turn = Some(last_turn);
        } else {
            state.end_waiting();
        }
        self.notify(&mut state);
    }

    /// Refuses new jobs and ends those that wait for another model's sake: that one does them, and what comes.
    pub(crate) fn retire(&self, deadline: Instant) {
        let mut state = self.lock();
        state.closed = Some(deadline);
        state.replaced = true;
        state.end_waiting();
        self.notify(&mut state);
    }

    /// What jobs are told that end because no more are taken.
    pub(crate) fn ended(&self) -> Failure {
        self.lock().ended()
    }

    /// Ends what waits: the engine is gone.
    pub(crate) fn end_waiting(&self) {
        self.lock().end_waiting();
    }

    /// The engine's means of ending runs of jobs that were cancelled.
    pub(crate) fn attach(&self, terminator: Terminator) {
        self.lock().terminator = Some(terminator);
    }

    /// Up to `free` jobs whose turn it is.
    pub(crate) fn take(&self, free: usize) -> Vec<Waiting> {
        let mut state = self.lock();
        if state.last_turn.is_some_and(|last_turn| last_turn <= Instant::now()) {
            state.end_waiting();
        }
        (0..free).map_while(|_| state.queue.pop()).collect()
    }

    /// Tells that a job which was taken has left the engine, and how long it was there.
    pub(crate) fn done(&self, client: &ClientId, occupied: Duration) {
        let mut state = self.lock();
        state.queue.done(client);
        state.typical = Some(match state.typical {
            None => occupied,
            Some(typical) => (typical * 7 + occupied) / 8,
        });
    }

    /// Jobs that may wait.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Jobs that wait for a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// Until when jobs may finish, if the daemon stops.
    pub(crate) fn closed(&self) -> Option<Instant> {
        self.lock().closed
    }

    /// Until when what waits may be taken, if the daemon stops and something does.
    pub(crate) fn last_turn(&self) -> Option<Instant> {
        let state = self.lock();
        state.last_turn.filter(|_| state.queue.len() > 0)
    }

    /// Blocks the engine until something happens: a new job, a ticket dropped, a parked row's caller that reads again,
    /// the daemon stopping, or the deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        while !state.news {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.news = false;
    }

    fn notify(&self, state: &mut State) {
        state.news = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic: the state is good whatever happened to another holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// In how long the last of those that wait is likely to be taken, and to be done; none if nothing is known yet of how long jobs
    /// take.
    fn last_turn_in(&self, slots: usize) -> Option<(Duration, Duration)> {
        let typical = self.typical?;
        let rounds = self.queue.len().div_ceil(slots.max(1));
        let begins = typical.saturating_mul(rounds.try_into().unwrap_or(u32::MAX));
        Some((begins, begins.saturating_add(typical)))
    }

    fn ended(&self) -> Failure {
        if self.replaced { Failure::Replaced } else { Failure::Shutdown }
    }

    fn end_waiting(&mut self) {
        let why = self.ended();
        for waiting in self.queue.drain() {
            // The channel is new and has room.
            let _ = waiting.events.try_send(Event::Failed(why.clone()));
        }
    }
}

impl Ticket {
    /// The next event; none after the last one, or if the engine is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        if self.parked.load(Ordering::Acquire) {
            let mut state = self.admission.lock();
            self.admission.notify(&mut state);
        }
        event
    }

    /// When things happen to the job.
    pub fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// The job's id.
    pub fn id(&self) -> Uuid {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.events.close();
        let mut state = self.admission.lock();
        if state.queue.remove(|waiting: &Waiting| waiting.tag == self.tag).is_none() {
            if let Some(terminator) = &state.terminator {
                terminator.terminate(self.tag);
            }
            self.admission.notify(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::{Priority, Work};

    fn job(client: &str) -> Job {
        Job {
            id: Uuid::now_v7(),
            work: Work::Score(vec![1, 2]),
            client: ClientId(client.into()),
            priority: Priority::Interactive,
            accepted: Instant::now(),
            deadline: None,
        }
    }

    #[test]
    fn a_full_queue_refuses_and_says_when_to_come_back() {
        let admission = Admission::new(2, 1);
        let _first = admission.submit(job("a")).unwrap();
        let second = admission.submit(job("a")).unwrap();
        match admission.submit(job("a")).unwrap_err() {
            Refusal::QueueFull { waiting: 2, limit: 2, retry_after } => assert_eq!(retry_after, FIRST_GUESS),
            other => panic!("{other:?}"),
        }
        // A caller that goes away frees its place.
        drop(second);
        assert!(admission.submit(job("a")).is_ok());
    }

    #[test]
    fn a_dropped_ticket_is_never_taken() {
        let admission = Admission::new(8, 1);
        let kept = admission.submit(job("a")).unwrap();
        drop(admission.submit(job("a")).unwrap());
        let taken = admission.take(8);
        assert_eq!(taken.iter().map(|waiting| waiting.job.id).collect::<Vec<_>>(), [kept.id()]);
        drop(kept);
        assert!(taken[0].events.is_closed());
    }

    #[test]
    fn closing_ends_what_waits_and_refuses_what_comes() {
        let admission = Admission::new(8, 1);
        let mut waiting = admission.submit(job("a")).unwrap();
        admission.close(Instant::now());
        assert!(matches!(waiting.events.try_recv(), Ok(Event::Failed(Failure::Shutdown))));
        assert_eq!(admission.submit(job("a")).unwrap_err(), Refusal::ShuttingDown);
        assert!(admission.take(8).is_empty());
    }

    #[test]
    fn closing_leaves_what_is_soon_done() {
        let admission = Admission::new(8, 2);
        let tickets: Vec<_> = (0..4).map(|_| admission.submit(job("a")).unwrap()).collect();
        admission.done(&ClientId("a".into()), Duration::from_millis(1));
        admission.close(Instant::now() + Duration::from_secs(60));
        assert_eq!(admission.submit(job("a")).unwrap_err(), Refusal::ShuttingDown);
        let taken: Vec<_> = admission.take(8).into_iter().map(|waiting| waiting.tag).collect();
        assert_eq!(taken, tickets.iter().map(|ticket| ticket.tag).collect::<Vec<_>>());
        assert_eq!(admission.last_turn(), None);
    }

    #[test]
    fn what_would_begin_in_time_and_not_end_is_told() {
        let admission = Admission::new(8, 1);
        let mut ticket = admission.submit(job("a")).unwrap();
        admission.done(&ClientId("a".into()), Duration::from_secs(1));
        admission.close(Instant::now() + Duration::from_millis(1_900));
        assert!(matches!(ticket.events.try_recv(), Ok(Event::Failed(Failure::Shutdown))));
    }

    #[test]
    fn what_takes_longer_than_it_seemed_is_told() {
        let admission = Admission::new(8, 1);
        let mut ticket = admission.submit(job("a")).unwrap();
        admission.done(&ClientId("a".into()), Duration::ZERO);
        let deadline = Instant::now() + Duration::from_millis(20);
        admission.close(deadline);
        assert_eq!(admission.last_turn(), Some(deadline));
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(admission.take(8).is_empty());
        assert!(matches!(ticket.events.try_recv(), Ok(Event::Failed(Failure::Shutdown))));
    }

    #[test]
    fn closing_ends_what_is_not_soon_done() {
        let admission = Admission::new(8, 1);
        let mut tickets: Vec<_> = (0..3).map(|_| admission.submit(job("a")).unwrap()).collect();
        admission.done(&ClientId("a".into()), Duration::from_secs(1));
        admission.close(Instant::now() + Duration::from_secs(60));
        assert!(admission.take(8).is_empty());
        assert!(
            tickets.iter_mut().all(|ticket| matches!(ticket.events.try_recv(), Ok(Event::Failed(Failure::Shutdown))))
        );
    }

    #[test]
    fn waiting_ends_with_news_or_at_the_deadline() {
        let admission = Admission::new(8, 1);
        admission.wait(Some(Instant::now() + Duration::from_millis(1)));
        let _ticket = admission.submit(job("a")).unwrap();
        admission.wait(None);
    }
}
