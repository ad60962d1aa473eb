//! Who is behind a call that failed. Only what a model or its engine alone can bring about counts against the model: the count
//! ends probations and closes the gates of rollouts, so no caller may move it.

use super::status::CallError;
use crate::admission::Refusal;
use crate::engine::job::Failure;
use crate::request::RequestError;

/// Who is behind a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A caller can bring it about: by what it asks, by how much, by when it goes away.
    Caller,
    /// The device's state, or an operator.
    Device,
    /// The model, or the engine that computes it.
    Model,
}

impl CallError {
    /// Who is behind it.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Request(error) => of_request(error),
            Self::Failed(failure) => of_failure(failure),
            Self::Refused(refusal) => of_refusal(refusal),
            Self::Abandoned => Cause::Model,
            Self::Deadline
            | Self::Timeout(_)
            | Self::SwitchFull
            | Self::NotAllowed
            | Self::Field { .. }
            | Self::NoHeader
            | Self::NotHere
            | Self::Settings(_) => Cause::Caller,
            Self::Loading
            | Self::Stopping
            | Self::Draining
            | Self::NoModel(_)
            | Self::NotManaged
            | Self::Store(_)
            | Self::Deploy(_)
            | Self::Pull(_)
            | Self::PullLost
            | Self::History(_)
            | Self::Trust(_) => Cause::Device,
        }
    }
}

fn of_request(error: &RequestError) -> Cause {
    match error {
        RequestError::Invalid(_)
        | RequestError::NoTokenizer
        | RequestError::NoChatTemplate
        | RequestError::TemplateRefused { .. }
        | RequestError::Busy { .. }
        // A text can be chosen so that a tokenizer or a template fails. Whether they fail at all texts, the daemon's own probe
        // finds out.
        | RequestError::Bundle(_) => Cause::Caller,
        RequestError::Shortage(_) => Cause::Device,
    }
}

fn of_failure(failure: &Failure) -> Cause {
    match failure {
        Failure::Engine(_) | Failure::NotFinite { .. } => Cause::Model,
        Failure::Adjusted { .. } | Failure::Deadline | Failure::Stalled { .. } => Cause::Caller,
        Failure::Replaced | Failure::Shutdown => Cause::Device,
    }
}

fn of_refusal(refusal: &Refusal) -> Cause {
    match refusal {
        Refusal::QueueFull { .. } => Cause::Caller,
        Refusal::ShuttingDown | Refusal::Replaced => Cause::Device,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_models_own_failures_count_against_it() {
        use Cause::{Caller, Device, Model};
        let full = Refusal::QueueFull { waiting: 1, limit: 1, retry_after: Duration::ZERO };
        for (error, cause) in [
            (CallError::Request(RequestError::Invalid(Vec::new())), Caller),
            (CallError::Request(RequestError::NoTokenizer), Caller),
            (CallError::Request(RequestError::NoChatTemplate), Caller),
            (CallError::Request(RequestError::TemplateRefused { words: "x".into(), turn: None }), Caller),
            (CallError::Request(RequestError::Busy { limit: 16 }), Caller),
            (CallError::Request(RequestError::Bundle("x".into())), Caller),
            (CallError::Request(RequestError::Shortage("x".into())), Device),
            (CallError::Failed(Failure::Adjusted { position: 3 }), Caller),
            (CallError::Failed(Failure::Deadline), Caller),
            (CallError::Failed(Failure::Stalled { seconds: 30 }), Caller),
            (CallError::Refused(full), Caller),
            (CallError::Deadline, Caller),
            (CallError::Timeout("x".into()), Caller),
            (CallError::SwitchFull, Caller),
            (CallError::Failed(Failure::Engine("x".into())), Model),
            (CallError::Failed(Failure::NotFinite { position: 3 }), Model),
            (CallError::Abandoned, Model),
            (CallError::Failed(Failure::Replaced), Device),
            (CallError::Failed(Failure::Shutdown), Device),
            (CallError::Refused(Refusal::ShuttingDown), Device),
            (CallError::Refused(Refusal::Replaced), Device),
            (CallError::Loading, Device),
            (CallError::Stopping, Device),
            (CallError::Draining, Device),
            (CallError::NoModel(None), Device),
        ] {
            assert_eq!(error.cause(), cause, "{error:?}");
        }
    }
}
