//! What went wrong on the wire, in words: every gRPC status and every broken connection becomes a [`Failure`] here.

use std::error::Error;
use std::io;

use recurve_proto::reason;
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::exit::Failure;
use crate::target::Target;

/// How far a call came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of the answer has arrived.
    Asked,
    /// The answer has begun.
    Answering,
}

/// A connection that could not be made.
pub(crate) fn connecting(target: &Target, error: &(dyn Error + 'static)) -> Failure {
    let cause = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => "there is no such socket".to_owned(),
        Some(io::ErrorKind::ConnectionRefused) => "nothing listens there".to_owned(),
        Some(io::ErrorKind::TimedOut) => "it does not answer".to_owned(),
        Some(io::ErrorKind::PermissionDenied) => {
            return Failure::Unreachable(format!(
                "cannot reach a daemon at {target}: this user may not open the socket; join the socket's group"
            ));
        }
        _ => root(error),
    };
    Failure::Unreachable(format!(
        "cannot reach a daemon at {target}: {cause}; start it with `recurved --bundle DIR`, or name another with --on"
    ))
}

/// A call that failed.
pub(crate) fn calling(target: &Target, status: &Status, stage: Stage) -> Failure {
    if let Some(cause) = status.source() {
        return transport(target, cause, stage);
    }
    let details = status.get_error_details();
    let said = said(status, &details);
    match status.code() {
        Code::DeadlineExceeded => Failure::Deadline(format!("{target}: {said}")),
        Code::ResourceExhausted => Failure::Busy(format!("{target} is busy: {said}{}", retry(&details))),
        Code::Unavailable => Failure::Unreachable(format!("{target} cannot answer now: {said}{}", retry(&details))),
        // What tonic makes of an HTTP answer that no gRPC server gave.
        _ if status.message().starts_with("grpc-status header missing") => no_daemon(target, status.message()),
        Code::Unimplemented => Failure::Failed(format!(
            "{target} does not know this call ({said}): is it a recurve daemon, and as new as this agent-cli?"
        )),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Aborted | Code::Cancelled => {
            Failure::Failed(format!("{target} failed: {said}"))
        }
        _ => Failure::Failed(format!("{target} refused: {said}")),
    }
}

/// A call that failed on this side of the wire.
fn transport(target: &Target, cause: &(dyn Error + 'static), stage: Stage) -> Failure {
    if find::<TimeoutExpired>(cause).is_some() {
        return Failure::Deadline(format!("{target}: the time given with --timeout was over"));
    }
    // A connection that was lost is made again for the next call.
    if find::<ConnectError>(cause).is_some() {
        return connecting(target, cause);
    }
    match stage {
        Stage::Answering => Failure::Incomplete(format!(
            "the connection to {target} broke before the answer was complete ({}): is the daemon still running? Its log says why it ended",
            root(cause)
        )),
        Stage::Asked => no_daemon(target, &root(cause)),
    }
}

/// Something took the connection and gave no answer of ours: it is no daemon, or it just ended.
fn no_daemon(target: &Target, cause: &str) -> Failure {
    Failure::Unreachable(format!(
        "no recurve daemon answers at {target} ({cause}): is this the gRPC port of recurved, and is recurved still running?"
    ))
}

/// The daemon's message, then one indented line for each field that is wrong, then what to do about it.
fn said(status: &Status, details: &ErrorDetails) -> String {
    let mut text = match status.message() {
        "" => format!("no message, status {:?}", status.code()),
        message => message.to_owned(),
    };
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
    }
    if let Some(info) = details.error_info()
        && info.domain == reason::DOMAIN
        && let Some(advice) = advice(&info.reason)
    {
        text.push_str("; ");
        text.push_str(advice);
    }
    text
}

/// What the person at this command line can do about an error of ours, where the daemon cannot know it.
fn advice(reason: &str) -> Option<&'static str> {
    match reason {
        reason::NO_CHAT_TEMPLATE => Some("`agent-cli generate --raw` sends the prompt as it is"),
        reason::NO_TOKENIZER => Some("`agent-cli generate --tokens 2,17,…` sends token ids"),
        _ => None,
    }
}

/// When to ask again, where the daemon says it.
fn retry(details: &ErrorDetails) -> String {
    match details.retry_info().and_then(|info| info.retry_delay) {
        Some(delay) => format!("; try again in {:.1} s", delay.as_secs_f64()),
        None => String::new(),
    }
}

/// The first error of type `E` in the chain of causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// The last cause in the chain, in its own words: those above it say "transport error".
fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| (*cause).source())
}
