//! What every call has: an id, a caller, a deadline, and one line in the log when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Extensions;
use tokio::time::timeout_at;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::{debug, error, info};
use uuid::Uuid;

use super::access::{self, Right};
use super::deadline;
use super::peer::{self, Peer};
use super::status::CallError;
use crate::engine::job::{ClientId, Failure, Timings, Usage};
use crate::node::{Counts, Node, NotServing, Serving};
use crate::request::RequestError;

/// An open call. The node waits for it when it stops.
#[derive(Debug)]
pub(super) struct Call {
    /// UUIDv7.
    pub id: Uuid,
    /// Whose it is.
    pub client: ClientId,
    /// When it came.
    pub accepted: Instant,
    /// What it is answered with.
    pub serving: Serving,
    /// When its caller no longer wants it.
    pub deadline: Option<tokio::time::Instant>,
    node: Arc<Node>,
    record: Record,
    _open: TaskTrackerToken,
}

/// How much the log says of a method's calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weight {
    /// One line at INFO.
    Engine,
    /// One line at DEBUG.
    Light,
}

impl Call {
    /// Begins a call.
    ///
    /// # Errors
    /// The caller may not use the model, the node does not serve at the moment, or the deadline is malformed.
    pub(super) async fn begin(
        method: &'static str,
        weight: Weight,
        node: &Arc<Node>,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self, Status> {
        let accepted = tokio::time::Instant::now();
        let id = Uuid::now_v7();
        let client = peer::client(extensions);
        let mut record = Record::new(method, weight, id, client.clone());
        let open = node.call();
        let allowed = access::check(extensions.get::<Peer>(), Right::Use);
        let deadline = allowed.and_then(|()| match metadata.get(deadline::HEADER) {
            None => Ok(None),
            Some(header) => deadline::parse(header.as_bytes(), accepted).map_err(CallError::Timeout),
        });
        let begun = match deadline {
            Ok(deadline) => serving(node, deadline).await.map(|serving| (deadline, serving)),
            Err(error) => Err(error),
        };
        match begun {
            Ok((deadline, serving)) => {
                let (accepted, node) = (accepted.into_std(), Arc::clone(node));
                record.counts = Some(Arc::clone(&serving.counts));
                Ok(Self { id, client, accepted, serving, deadline, node, record, _open: open })
            }
            Err(error) => Err(record.failed(&error)),
        }
    }

    /// Goes on with the model that took the place of the one that the call began with.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn go_on(&mut self) -> Result<(), CallError> {
        self.serving = serving(&self.node, self.deadline).await?;
        self.record.counts = Some(Arc::clone(&self.serving.counts));
        Ok(())
    }

    /// Does a part of the call's work, until the deadline.
    ///
    /// # Errors
    /// The work's own, or that the deadline passed.
    pub(super) async fn within<T, E: Into<CallError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError> {
        until(self.deadline, work).await
    }

    /// Ends the call with an error.
    pub(super) fn failed(&mut self, error: &CallError) -> Status {
        self.record.failed(error)
    }

    /// Tells of tokens made so far, for the case that no end follows.
    pub(super) fn progressed(&mut self, tokens: usize) {
        self.record.usage.completion_tokens += u64::try_from(tokens).unwrap_or_default();
    }

    /// Ends the call with an answer.
    pub(super) fn finished(&mut self, outcome: &'static str, usage: Usage, timings: Timings) {
        self.record.outcome = outcome;
        if let (Weight::Engine, Some(counts)) = (self.record.weight, &self.record.counts) {
            Counts::add(&counts.answered);
        }
        self.record.usage = usage;
        self.record.timings = timings;
    }
}

/// What the node serves, or will in a moment.
async fn serving(node: &Node, deadline: Option<tokio::time::Instant>) -> Result<Serving, CallError> {
    until(deadline, async {
        node.serving().await.map_err(|error| match error {
            NotServing::Loading => CallError::Loading,
            NotServing::Empty => CallError::NoModel,
            NotServing::Full => CallError::SwitchFull,
            NotServing::Stopping => CallError::Stopping,
        })
    })
    .await
}

async fn until<T, E: Into<CallError>>(
    deadline: Option<tokio::time::Instant>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, CallError> {
    match deadline {
        None => work.await.map_err(Into::into),
        Some(deadline) => timeout_at(deadline, work).await.map_err(|_| CallError::Deadline)?.map_err(Into::into),
    }
}

/// The line in the log, written when the call is dropped.
#[derive(Debug)]
struct Record {
    method: &'static str,
    weight: Weight,
    id: Uuid,
    client: ClientId,
    begun: Instant,
    outcome: &'static str,
    usage: Usage,
    timings: Timings,
    /// Of the model that answers.
    counts: Option<Arc<Counts>>,
}

impl Record {
    fn new(method: &'static str, weight: Weight, id: Uuid, client: ClientId) -> Self {
        Self {
            method,
            weight,
            id,
            client,
            begun: Instant::now(),
            // What remains if the client goes away.
            outcome: "cancelled",
            usage: Usage::default(),
            timings: Timings::default(),
            counts: None,
        }
    }

    fn failed(&mut self, failure: &CallError) -> Status {
        let status = failure.status(self.id);
        self.outcome = code_name(&status);
        let by_model = matches!(
            failure,
            CallError::Failed(Failure::Engine(_) | Failure::NotFinite { .. })
                | CallError::Request(RequestError::Bundle(_))
                | CallError::Abandoned
        );
        if let (true, Some(counts)) = (by_model, &self.counts) {
            Counts::add(&counts.failed);
        }
        match failure {
            CallError::Request(RequestError::Bundle(_)) | CallError::Failed(Failure::NotFinite { .. }) => {
                error!(request = %self.id, "the bundle cannot be used: {}", status.message());
            }
            _ => debug!(request = %self.id, code = self.outcome, "refused: {}", status.message()),
        }
        status
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ms = |duration: Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    method = self.method,
                    request = %self.id,
                    client = %self.client.0,
                    outcome = self.outcome,
                    prompt_tokens = self.usage.prompt_tokens,
                    completion_tokens = self.usage.completion_tokens,
                    queue_ms = ms(self.timings.queue),
                    first_token_ms = ms(self.timings.time_to_first_token),
                    total_ms = ms(self.begun.elapsed()),
                    "request"
                )
            };
        }
        match self.weight {
            Weight::Engine => line!(info),
            Weight::Light => line!(debug),
        }
    }
}

fn code_name(status: &Status) -> &'static str {
    use tonic::Code;
    match status.code() {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}
