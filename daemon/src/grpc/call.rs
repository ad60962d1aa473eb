//! What every call has: an id, a caller, a deadline, and a record of what became of it.

use std::sync::Arc;
use std::time::Instant;

use http::Extensions;
use tokio::time::timeout_at;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use super::access::{self, Right};
use super::deadline;
use super::peer::{self, Peer};
use super::record::{Method, Record};
use super::status::CallError;
use crate::engine::clock::Clock;
use crate::engine::job::{ClientId, Delta, Timings, Usage};
use crate::node::{Node, NotServing, Phase, Serving};
use crate::system::trim;

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
    _memory: GivenBack,
    _open: TaskTrackerToken,
}

/// Has the memory of a large request given back when the call is over.
#[derive(Debug)]
struct GivenBack {
    large: bool,
}

impl Drop for GivenBack {
    fn drop(&mut self) {
        if self.large {
            trim::soon();
        }
    }
}

impl Call {
    /// Begins a call with a message of so many bytes.
    ///
    /// # Errors
    /// The caller may not use the model, the node does not serve at the moment, or the deadline is malformed.
    pub(super) async fn begin(
        method: Method,
        bytes: usize,
        node: &Arc<Node>,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self, Status> {
        let accepted = tokio::time::Instant::now();
        let memory = GivenBack { large: bytes >= trim::LARGE };
        let id = Uuid::now_v7();
        let client = peer::client(extensions);
        let mut record = Record::new(method, id, client.clone(), node, metadata, extensions);
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
                record.serves(&serving);
                Ok(Self { id, client, accepted, serving, deadline, node, record, _memory: memory, _open: open })
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
        self.record.serves(&self.serving);
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

    /// Tells of what was made so far, for the case that no end follows.
    pub(super) fn progressed(&mut self, delta: &Delta) {
        self.record.progressed(delta);
    }

    /// Tells what knows where the time goes, for the case that no end follows.
    pub(super) fn waits(&mut self, clock: Arc<Clock>) {
        self.record.waits(clock);
    }

    /// Tells how many tokens the prompt has, for the case that no end follows.
    pub(super) fn reads(&mut self, tokens: usize) {
        self.record.reads(tokens);
    }

    /// Tells what is asked, which is kept only where that is configured.
    pub(super) fn asked(&mut self, prompt: impl FnOnce() -> String) {
        self.record.asked(prompt);
    }

    /// Ends the call with an answer.
    pub(super) fn finished(&mut self, outcome: &'static str, usage: Usage, timings: Timings) {
        self.record.finished(outcome, usage, timings);
    }
}

/// An operator's call that would change something and comes when the node stops already is told so, instead of being begun.
pub(super) fn unless_stopping(node: &Node) -> Result<(), CallError> {
    if matches!(node.phase(), Phase::Stopping) { Err(CallError::Stopping) } else { Ok(()) }
}

/// What the node serves, or will in a moment.
async fn serving(node: &Node, deadline: Option<tokio::time::Instant>) -> Result<Serving, CallError> {
    until(deadline, async {
        node.serving().await.map_err(|error| match error {
            NotServing::Loading => CallError::Loading,
            NotServing::Empty => CallError::NoModel(node.progress().trouble()),
            NotServing::Full => CallError::SwitchFull,
            NotServing::Stopping => CallError::Stopping,
            NotServing::Draining => CallError::Draining,
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
