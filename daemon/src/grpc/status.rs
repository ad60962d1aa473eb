//! Every error of a call as a gRPC status with details that programs can read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use recurve_proto::reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use uuid::Uuid;

use super::{models, trust};
use crate::admission::Refusal;
use crate::deployment::DeployError;
use crate::engine::job::Failure;
use crate::progress::Trouble;
use crate::request::{RequestError, Violation};
use crate::store::{PullError, StoreError};
use crate::trust::TrustError;

/// When to ask again while the bundle is loading.
const LOADING_RETRY: Duration = Duration::from_secs(1);
/// When to ask a node that stops again: where it is only started again, its sockets hold who comes meanwhile.
const RESTART_RETRY: Duration = Duration::from_millis(100);

/// When to ask again while many long texts wait: one takes some tenths of a second.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The name of a status, as the conventions have it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The request is wrong, or this bundle cannot answer it.
    Request(RequestError),
    /// The queue did not take it.
    Refused(Refusal),
    /// The engine could not do it.
    Failed(Failure),
    /// The engine is gone without an answer.
    Abandoned,
    /// The caller's deadline passed.
    Deadline,
    /// The header `grpc-timeout` is wrong, in these words.
    Timeout(String),
    /// The bundle is being loaded.
    Loading,
    /// The node stops.
    Stopping,
    /// An operator told the node to take no new requests.
    Draining,
    /// There is no model that can be served, for this reason, where there are models.
    NoModel(Option<Trouble>),
    /// One model takes another's place, and as many requests wait for it as may.
    SwitchFull,
    /// The node serves the bundle of its configuration.
    NotManaged,
    /// The caller may not do this.
    NotAllowed,
    /// The caller may do this on the node's machine only.
    NotHere,
    /// A field of an operator's request is wrong.
    Field {
        /// Which.
        field: &'static str,
        /// How.
        words: String,
    },
    /// An upload does not begin with its header.
    NoHeader,
    /// The store refused.
    Store(StoreError),
    /// An order was not carried out.
    Deploy(DeployError),
    /// A model was not pulled.
    Pull(Arc<PullError>),
    /// The pull ended without a word.
    PullLost,
    /// Settings cannot be changed so: each key, and why.
    Settings(Vec<(String, String)>),
    /// The history cannot be read.
    History(String),
    /// Something is not believed.
    Trust(TrustError),
}

impl From<RequestError> for CallError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl CallError {
    /// The status for the wire.
    pub(super) fn status(&self, request_id: Uuid) -> Status {
        let (code, reason, message) = self.describe();
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, reason::DOMAIN, HashMap::new());
        details.set_request_info(request_id.to_string(), "");
        match self {
            Self::Request(RequestError::Invalid(violations)) => {
                details.set_bad_request(violations.iter().map(field).collect::<Vec<_>>());
            }
            Self::Request(RequestError::TemplateRefused { words, turn }) => {
                let field = turn.map_or("chat.messages".to_owned(), |turn| format!("chat.messages[{turn}]"));
                details.add_bad_request_violation(field, words);
            }
            Self::Failed(failure @ Failure::Adjusted { .. }) => {
                details.add_bad_request_violation("sampling", failure.to_string());
            }
            Self::Timeout(words) => {
                details.add_bad_request_violation(super::deadline::HEADER, words);
            }
            Self::Settings(wrong) => {
                for (key, words) in wrong {
                    details.add_bad_request_violation(key, words);
                }
            }
            Self::Field { field, words } => {
                details.add_bad_request_violation(*field, words);
            }
            Self::Request(RequestError::Busy { .. } | RequestError::Shortage(_)) => {
                details.set_retry_info(Some(BUSY_RETRY));
            }
            Self::Refused(Refusal::QueueFull { retry_after, .. }) => {
                details.set_retry_info(Some(*retry_after));
            }
            Self::Refused(Refusal::Replaced) | Self::Failed(Failure::Replaced) => {
                details.set_retry_info(Some(Duration::ZERO));
            }
            Self::Loading | Self::SwitchFull => {
                details.set_retry_info(Some(LOADING_RETRY));
            }
            Self::Refused(Refusal::ShuttingDown) | Self::Failed(Failure::Shutdown) | Self::Stopping => {
                details.set_retry_info(Some(RESTART_RETRY));
            }
            _ => {}
        }
        Status::with_error_details(code, message, details)
    }

    /// Code, stable reason and message.
    fn describe(&self) -> (Code, &'static str, String) {
        const STOPPING: &str = "this node is shutting down: ask again when it is back, or ask another";
        match self {
            Self::Request(error) => {
                let (code, reason) = match error {
                    RequestError::Invalid(_) => (Code::InvalidArgument, reason::INVALID_REQUEST),
                    RequestError::TemplateRefused { .. } => (Code::InvalidArgument, reason::TEMPLATE_REFUSED),
                    RequestError::NoTokenizer => (Code::FailedPrecondition, reason::NO_TOKENIZER),
                    RequestError::NoChatTemplate => (Code::FailedPrecondition, reason::NO_CHAT_TEMPLATE),
                    RequestError::Busy { .. } | RequestError::Shortage(_) => {
                        (Code::ResourceExhausted, reason::QUEUE_FULL)
                    }
                    RequestError::Bundle(_) => (Code::Internal, reason::BUNDLE_UNUSABLE),
                };
                (code, reason, error.to_string())
            }
            Self::Refused(Refusal::QueueFull { waiting, limit, retry_after }) => (
                Code::ResourceExhausted,
                reason::QUEUE_FULL,
                format!(
                    "{waiting} requests wait already and {limit} may: ask again in {:.1} s, or ask another node",
                    retry_after.as_secs_f64()
                ),
            ),
            Self::SwitchFull => (
                Code::ResourceExhausted,
                reason::QUEUE_FULL,
                "another model is being put in place, and as many requests wait for it as may: ask again in a second".into(),
            ),
            Self::Refused(Refusal::Replaced) | Self::Failed(Failure::Replaced) => (
                Code::Unavailable,
                reason::LOADING,
                "another model was put in place at this moment: ask again at once".into(),
            ),
            Self::Refused(Refusal::ShuttingDown) | Self::Failed(Failure::Shutdown) | Self::Stopping => {
                (Code::Unavailable, reason::SHUTTING_DOWN, STOPPING.into())
            }
            Self::Draining => (
                Code::Unavailable,
                reason::DRAINING,
                "this node takes no new requests, as an operator said (`agent-cli node drain`): ask another, or have it resume \
                 with `agent-cli node resume`"
                    .into(),
            ),
            Self::Failed(failure @ Failure::Stalled { .. }) => (Code::Aborted, reason::NOT_READ, failure.to_string()),
            Self::Failed(failure @ Failure::Engine(_)) => (Code::Internal, reason::ENGINE_FAILED, failure.to_string()),
            Self::Failed(failure @ Failure::NotFinite { .. }) => {
                (Code::Internal, reason::NOT_A_NUMBER, failure.to_string())
            }
            Self::Failed(failure @ Failure::Adjusted { .. }) => {
                (Code::InvalidArgument, reason::INVALID_REQUEST, format!("sampling: {failure}"))
            }
            Self::Abandoned => (
                Code::Internal,
                reason::ENGINE_FAILED,
                "the engine ended without an answer; the node's log says why".into(),
            ),
            Self::Deadline | Self::Failed(Failure::Deadline) => (
                Code::DeadlineExceeded,
                reason::DEADLINE_EXCEEDED,
                "the caller's deadline passed before the answer was complete".into(),
            ),
            Self::Timeout(words) => {
                (Code::InvalidArgument, reason::INVALID_REQUEST, format!("{}: {words}", super::deadline::HEADER))
            }
            Self::Loading => {
                (Code::Unavailable, reason::LOADING, "the model is being loaded: ask again in a second".into())
            }
            Self::NoModel(trouble) => {
                let words = match trouble {
                    None => "this node has no model yet: give it one with `agent-cli deploy BUNDLE`".into(),
                    Some(Trouble::Models(reason)) => {
                        format!("this node can serve none of its models: {reason}; deploy one with `agent-cli deploy BUNDLE`")
                    }
                    Some(Trouble::Bundle(reason)) => format!(
                        "this node cannot serve its bundle: {reason}; copy or export the bundle again, and restart the daemon"
                    ),
                };
                (Code::FailedPrecondition, reason::NO_MODEL, words)
            }
            Self::NotManaged => (
                Code::FailedPrecondition,
                reason::NOT_MANAGED,
                "this node serves the bundle of its configuration: leave out `bundle` (--bundle) there, and it keeps the \
                 models that are deployed to it"
                    .into(),
            ),
            Self::NotAllowed => (
                Code::PermissionDenied,
                reason::NOT_ALLOWED,
                "only operators may do this: come over the node's Unix socket, or over TLS with a certificate".into(),
            ),
            Self::NotHere => (
                Code::PermissionDenied,
                reason::NOT_ALLOWED,
                "this is allowed on the node's own machine only: run it there, over the node's Unix socket".into(),
            ),
            Self::Field { field, words } => {
                (Code::InvalidArgument, reason::INVALID_REQUEST, format!("{field}: {words}"))
            }
            Self::Settings(wrong) => {
                let words: Vec<String> = wrong.iter().map(|(key, words)| format!("{key} {words}")).collect();
                (Code::InvalidArgument, reason::INVALID_REQUEST, words.join("; "))
            }
            Self::History(words) => (Code::Internal, reason::HISTORY_FAILED, words.clone()),
            Self::NoHeader => (
                Code::InvalidArgument,
                reason::INVALID_REQUEST,
                "an upload begins with a message that holds its `header`".into(),
            ),
            Self::Store(error) => {
                let (code, reason) = models::describe(error);
                (code, reason, error.to_string())
            }
            Self::Pull(error) => {
                let (code, reason) = models::describe_pull(error);
                (code, reason, error.to_string())
            }
            Self::PullLost => (
                Code::Internal,
                reason::STORE_FAILED,
                "the pull ended without saying why; the node's log may: ask again, it goes on where it was".into(),
            ),
            Self::Deploy(error) => {
                let (code, reason) = models::describe_order(error);
                (code, reason, error.to_string())
            }
            Self::Trust(error) => {
                let (code, reason) = trust::describe(error);
                (code, reason, error.to_string())
            }
        }
    }
}

fn field(violation: &Violation) -> FieldViolation {
    FieldViolation::new(&violation.field, &violation.description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations() -> Vec<Violation> {
        ["a", "b"].map(|field| Violation { field: field.into(), description: format!("{field} is wrong") }).into()
    }

    #[test]
    fn every_error_has_its_code_and_reason() {
        let full = Refusal::QueueFull { waiting: 64, limit: 64, retry_after: Duration::from_millis(2500) };
        for (error, code, reason) in [
            (CallError::Request(RequestError::Invalid(violations())), Code::InvalidArgument, reason::INVALID_REQUEST),
            (CallError::Request(RequestError::NoTokenizer), Code::FailedPrecondition, reason::NO_TOKENIZER),
            (CallError::Request(RequestError::NoChatTemplate), Code::FailedPrecondition, reason::NO_CHAT_TEMPLATE),
            (
                CallError::Request(RequestError::TemplateRefused { words: "x".into(), turn: Some(1) }),
                Code::InvalidArgument,
                reason::TEMPLATE_REFUSED,
            ),
            (CallError::Request(RequestError::Busy { limit: 16 }), Code::ResourceExhausted, reason::QUEUE_FULL),
            (CallError::Request(RequestError::Shortage("x".into())), Code::ResourceExhausted, reason::QUEUE_FULL),
            (CallError::Request(RequestError::Bundle("x".into())), Code::Internal, reason::BUNDLE_UNUSABLE),
            (CallError::Refused(full), Code::ResourceExhausted, reason::QUEUE_FULL),
            (CallError::Refused(Refusal::ShuttingDown), Code::Unavailable, reason::SHUTTING_DOWN),
            (CallError::Failed(Failure::Shutdown), Code::Unavailable, reason::SHUTTING_DOWN),
            (CallError::Stopping, Code::Unavailable, reason::SHUTTING_DOWN),
            (CallError::Failed(Failure::Engine("x".into())), Code::Internal, reason::ENGINE_FAILED),
            (CallError::Failed(Failure::NotFinite { position: 3 }), Code::Internal, reason::NOT_A_NUMBER),
            (CallError::Failed(Failure::Adjusted { position: 3 }), Code::InvalidArgument, reason::INVALID_REQUEST),
            (CallError::Abandoned, Code::Internal, reason::ENGINE_FAILED),
            (CallError::Deadline, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED),
            (CallError::Failed(Failure::Deadline), Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED),
            (CallError::Failed(Failure::Stalled { seconds: 30 }), Code::Aborted, reason::NOT_READ),
            (CallError::Timeout("x".into()), Code::InvalidArgument, reason::INVALID_REQUEST),
            (CallError::Loading, Code::Unavailable, reason::LOADING),
        ] {
            let id = Uuid::now_v7();
            let status = error.status(id);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{error:?}");
            assert_eq!(info.domain, reason::DOMAIN);
            assert_eq!(status.get_details_request_info().unwrap().request_id, id.to_string());
        }
    }

    #[test]
    fn a_node_without_a_model_says_what_brings_one() {
        let message = |trouble| CallError::NoModel(trouble).status(Uuid::nil()).message().to_owned();
        let deploy = "`agent-cli deploy BUNDLE`";
        for trouble in [None, Some(Trouble::Models("x".into()))] {
            assert!(message(trouble.clone()).ends_with(deploy), "{trouble:?}");
        }
        let damaged = message(Some(Trouble::Bundle("a.bin is damaged".into())));
        assert!(damaged.contains("a.bin is damaged; copy or export the bundle again, and restart"), "{damaged}");
        assert!(!damaged.contains("deploy"), "{damaged}");
    }

    #[test]
    fn all_violations_travel_together() {
        let status = CallError::Request(RequestError::Invalid(violations())).status(Uuid::nil());
        assert_eq!(status.message(), "a: a is wrong; b: b is wrong");
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_full_queue_tells_when_to_retry() {
        let delay = Duration::from_millis(1500);
        let status =
            CallError::Refused(Refusal::QueueFull { waiting: 4, limit: 4, retry_after: delay }).status(Uuid::nil());
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(delay));
        assert!(status.message().contains("1.5 s"), "{}", status.message());
        let busy = CallError::Request(RequestError::Busy { limit: 16 }).status(Uuid::nil());
        assert_eq!(busy.get_details_retry_info().unwrap().retry_delay, Some(BUSY_RETRY));
        for stopping in
            [CallError::Refused(Refusal::ShuttingDown), CallError::Failed(Failure::Shutdown), CallError::Stopping]
        {
            let retry = stopping.status(Uuid::nil()).get_details_retry_info();
            assert_eq!(retry.unwrap().retry_delay, Some(RESTART_RETRY));
        }
    }
}
