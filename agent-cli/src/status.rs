//! What went wrong on the wire, in words: every gRPC status and every broken connection becomes a [`Failure`] here.

mod mismatch;

use std::error::Error;
use std::io;

use recurve_proto::reason;
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::exit::Failure;
use crate::target::{Peer, Shown, Target};

/// How far a call came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of the answer has arrived.
    Asked,
    /// The answer has begun.
    Answering,
}

/// A call that failed: for the person, and for who decides whether to call again.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// What to tell somebody who asked one daemon.
    pub(crate) failure: Failure,
    /// The same for somebody who knows which daemon it was, and asked many.
    pub(crate) words: String,
    /// The daemon's stable reason; empty where it gave none.
    pub(crate) reason: String,
    /// The daemon could not be reached, or the connection was lost: later it may be there again.
    pub(crate) lost: bool,
}

impl Trouble {
    /// Nothing was heard of a daemon.
    pub(crate) fn lost(target: &Target, words: String) -> Self {
        let failure = Failure::Unreachable(format!("{target}: {words}"));
        Self { failure, words, reason: String::new(), lost: true }
    }

    /// A call that failed.
    pub(crate) fn calling(peer: &Peer, status: &Status, stage: Stage) -> Self {
        let details = status.get_error_details();
        let words = match status.source() {
            None => said(status, &details),
            Some(cause) => match mismatch::known(peer, cause, made(cause)) {
                Some(words) => words,
                None => format!("the connection broke: {}{}", root(cause), certificates(peer, cause, made(cause))),
            },
        };
        Self { failure: calling(peer, status, stage), words, reason: reason(status), lost: is_lost(status) }
    }

    /// A connection that could not be made.
    pub(crate) fn connecting(peer: &Peer, error: &(dyn Error + 'static)) -> Self {
        let words = mismatch::known(peer, error, false)
            .unwrap_or_else(|| not_connected(&peer.target, error) + certificates(peer, error, false));
        Self { failure: connecting(peer, error), ..Self::lost(&peer.target, words) }
    }
}

impl From<Failure> for Trouble {
    /// Of a failure on this side.
    fn from(failure: Failure) -> Self {
        let words = failure.message().unwrap_or_default().to_owned();
        Self { failure, words, reason: String::new(), lost: false }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        trouble.failure
    }
}

/// Why there is no connection.
fn not_connected(target: &Target, error: &(dyn Error + 'static)) -> String {
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => "there is no such socket".to_owned(),
        Some(io::ErrorKind::ConnectionRefused) => match target {
            Target::Unix(path) if path.is_dir() => {
                "that is a directory: name the socket in it, which is called `recurved.sock` unless it was set otherwise".to_owned()
            }
            Target::Unix(path) if path.is_file() => "that is a file and not a socket".to_owned(),
            _ => "nothing listens there".to_owned(),
        },
        Some(io::ErrorKind::TimedOut) => "it does not answer".to_owned(),
        Some(io::ErrorKind::PermissionDenied) => {
            "this user may not open the socket; join the socket's group".to_owned()
        }
        _ => root(error),
    }
}

/// Certificates that no connection can be made with.
pub(crate) fn unusable(error: &(dyn Error + 'static)) -> String {
    let words = root(error);
    if words.contains("KeyMismatch") {
        return "--key is not the key of --certificate: `openssl x509 -in CERTIFICATE -noout -pubkey` and `openssl pkey -in KEY \
                -pubout` must print the same"
            .to_owned();
    }
    format!("the certificates cannot be used: {words}")
}

/// A connection that could not be made.
fn connecting(peer: &Peer, error: &(dyn Error + 'static)) -> Failure {
    let (target, cause) = (&peer.target, not_connected(&peer.target, error));
    if let Some(words) = mismatch::known(peer, error, false) {
        return Failure::Unreachable(format!("cannot talk to the daemon at {target}: {words}"));
    }
    let advice = match certificates(peer, error, false) {
        "" if find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) => "",
        "" => "; start it with `recurved`, or name another with --on",
        advice => advice,
    };
    Failure::Unreachable(format!("cannot reach a daemon at {target}: {cause}{advice}"))
}

/// What certificates may have to do with a connection that ended before anything was heard; empty where they have nothing to do
/// with it. A daemon that wants others says nothing in plain words: it closes the connection, while that is being made or after.
fn certificates(peer: &Peer, error: &(dyn Error + 'static), made: bool) -> &'static str {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    let kind = find::<io::Error>(error).map(io::Error::kind);
    let closed = matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | InvalidData | UnexpectedEof));
    match (peer.shown, kind) {
        _ if !(made || closed) || find::<TimeoutExpired>(error).is_some() => "",
        (Shown::Enough, _) => "",
        (Shown::Nothing, _) => "; if the daemon wants TLS, name certificates with --ca, --certificate and --key",
        // What rustls says of the daemon's certificate, or of an answer that is no TLS; an alert is what the daemon says of ours.
        (_, Some(InvalidData)) if !made && !root(error).starts_with("received fatal alert") => {
            "; does the daemon speak TLS there, and is --ca the authority that knows it?"
        }
        (Shown::Authority, _) => "; the daemon may want your own certificate: name it with --certificate and --key",
        (Shown::Own, _) => {
            "; the daemon may not know the authority of your certificate: name another with --certificate and --key"
        }
    }
}

/// A call that failed.
pub(crate) fn calling(peer: &Peer, status: &Status, stage: Stage) -> Failure {
    let target = &peer.target;
    if let Some(cause) = status.source() {
        return transport(peer, cause, stage);
    }
    let details = status.get_error_details();
    let said = said(status, &details);
    match status.code() {
        Code::DeadlineExceeded => Failure::Deadline(format!("{target}: {said}")),
        Code::ResourceExhausted => Failure::Busy(format!("{target} is busy: {said}{}", retry(status, &details))),
        Code::Unavailable => {
            Failure::Unreachable(format!("{target} cannot answer now: {said}{}", retry(status, &details)))
        }
        // What tonic makes of an HTTP answer that no gRPC server gave.
        _ if status.message().starts_with("grpc-status header missing") => no_daemon(target, status.message(), ""),
        Code::Unimplemented => Failure::Failed(format!(
            "{target} does not know this call ({said}): is it a recurve daemon, and as new as this agent-cli?"
        )),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Aborted | Code::Cancelled => {
            Failure::Failed(format!("{target} failed: {said}"))
        }
        _ => Failure::Failed(format!("{target} refused: {said}")),
    }
}

/// The stable reason of a daemon's error; empty where it is none of ours.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == reason::DOMAIN);
    info.map(|info| info.reason.clone()).unwrap_or_default()
}

/// Whether a call failed because nobody was there to answer, or not to the end.
pub(crate) fn is_lost(status: &Status) -> bool {
    status.source().is_some()
        || status.code() == Code::Unavailable
        || status.message().starts_with("grpc-status header missing")
}

/// A call that failed on this side of the wire.
fn transport(peer: &Peer, cause: &(dyn Error + 'static), stage: Stage) -> Failure {
    let target = &peer.target;
    if find::<TimeoutExpired>(cause).is_some() {
        return Failure::Deadline(format!("{target}: the time given with --timeout was over"));
    }
    // A connection that was lost is made again for the next call.
    if !made(cause) {
        return connecting(peer, cause);
    }
    match stage {
        Stage::Answering => Failure::Incomplete(format!(
            "the connection to {target} broke before the answer was complete ({}): is the daemon still running? Its log says why it ended",
            root(cause)
        )),
        Stage::Asked => match mismatch::known(peer, cause, true) {
            Some(words) => Failure::Unreachable(format!("cannot talk to the daemon at {target}: {words}")),
            None => no_daemon(target, &root(cause), certificates(peer, cause, true)),
        },
    }
}

/// There was a connection for the call.
fn made(cause: &(dyn Error + 'static)) -> bool {
    find::<ConnectError>(cause).is_none()
}

/// Something took the connection and gave no answer of ours: it is no daemon, or it just ended.
fn no_daemon(target: &Target, cause: &str, advice: &str) -> Failure {
    Failure::Unreachable(format!(
        "no recurve daemon answers at {target} ({cause}{advice}): is this the gRPC port of recurved, and is recurved still running?"
    ))
}

/// The daemon's message, with a line for each field that is wrong, then what to do about it.
fn said(status: &Status, details: &ErrorDetails) -> String {
    let mut text = match status.message() {
        "" => format!("no message, status {:?}", status.code()),
        message => with_violations(message, details),
    };
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
        reason::REGISTRY_REFUSED => {
            Some("a device shows a registry what is in its `registry.auth_file`, or yours with `--lend-credentials`")
        }
        reason::TRUST_EXPIRED => Some(
            "`agent-cli deploy --trust TRUST BUNDLE` takes them from a folder that was refreshed without the bundle",
        ),
        reason::NO_TOKENIZER => Some("`agent-cli generate --tokens 2,17,…` sends token ids"),
        _ => None,
    }
}

/// The message and its wrong fields, one on each line. A message that holds them all already gives way to the lines, and
/// is enough by itself where a single field is wrong.
fn with_violations(message: &str, details: &ErrorDetails) -> String {
    let wrong = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
    let told = !wrong.is_empty() && wrong.iter().all(|violation| message.contains(&violation.description));
    if wrong.is_empty() || (told && wrong.len() == 1) {
        return message.to_owned();
    }
    let mut text = if told { format!("{} fields are wrong", wrong.len()) } else { message.to_owned() };
    for violation in wrong {
        text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
    }
    text
}

/// When to ask again, where the daemon tells it and its message does not say it already.
fn retry(status: &Status, details: &ErrorDetails) -> String {
    match details.retry_info().and_then(|info| info.retry_delay) {
        Some(delay) if !status.message().contains("ask again in") => {
            format!("; ask again in {:.1} s", delay.as_secs_f64())
        }
        _ => String::new(),
    }
}

/// The first error of type `E` in the chain of causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// The last cause in the chain, in its own words: those above it say "transport error".
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(fields: &[(&str, &str)]) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        for (field, description) in fields {
            details.add_bad_request_violation(*field, *description);
        }
        details
    }

    #[test]
    fn wrong_fields_are_told_once() {
        let one = wrong(&[("top_p", "7 is too large")]);
        let two = wrong(&[("top_p", "7 is too large"), ("stop", "is empty")]);
        for (message, details, expected) in [
            ("no", &ErrorDetails::new(), "no"),
            ("top_p: 7 is too large", &one, "top_p: 7 is too large"),
            ("no", &one, "no\n  top_p: 7 is too large"),
            (
                "top_p: 7 is too large; stop: is empty",
                &two,
                "2 fields are wrong\n  top_p: 7 is too large\n  stop: is empty",
            ),
            ("no", &two, "no\n  top_p: 7 is too large\n  stop: is empty"),
        ] {
            assert_eq!(with_violations(message, details), expected);
        }
    }

    #[test]
    fn what_has_expired_is_brought_by_the_folder_that_renewed_it() {
        let details = ErrorDetails::with_error_info(reason::TRUST_EXPIRED, reason::DOMAIN, []);
        let text = said(&Status::failed_precondition("the timestamp metadata expired"), &details);
        assert!(text.contains("; `agent-cli deploy --trust TRUST BUNDLE`"), "{text}");
    }

    #[test]
    fn when_to_ask_again_is_told_once() {
        let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1500)));
        let text = |message: &str| retry(&Status::unavailable(message), &details);
        assert_eq!(text("loading"), "; ask again in 1.5 s");
        assert_eq!(text("loading: ask again in a second"), "");
        assert_eq!(retry(&Status::unavailable("loading"), &ErrorDetails::new()), "");
    }
}
