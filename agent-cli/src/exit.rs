//! How a command ends when it does not succeed: one message for the person, one exit code for the program.

use std::io::Write as _;
use std::process::ExitCode;

use recurve_author::PackError;
use recurve_bundle::BundleError;
use recurve_registry::RegistryError;

/// Why a command did not do what was asked. The text says what happened and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The daemon refused the request or failed at it, or this machine did (a full disk, a closed terminal).
    Failed(String),
    /// The command line asks for something that cannot be.
    Usage(String),
    /// Nothing that speaks our protocol, or a registry's, answers at the address.
    Unreachable(String),
    /// The answer began and did not end: what was printed is only its beginning.
    Incomplete(String),
    /// The time given with `--timeout` was over.
    Deadline(String),
    /// Every place at the daemon is taken; later it may have one.
    Busy(String),
    /// A file, checkpoint or bundle is damaged, or is not what it should be.
    Damaged(String),
    /// Some devices of a fleet did not do what was asked of all.
    Partly(String),
    /// A rollout was stopped by its gate.
    Stopped(String),
    /// The person pressed Ctrl-C.
    Interrupted,
    /// The program was told to end by this signal, and has put everything back. It ends by the signal itself.
    Killed(i32),
    /// The reader of our output closed it, as `head` does. Not an error.
    OutputClosed,
}

/// Every exit code and what it means, in the words of `--help` and of `docs/exit-codes.md`.
pub(crate) const CODES: [(u8, &str); 11] = [
    (0, "done"),
    (1, "the daemon or the registry refused the request or failed at it, or this machine did"),
    (2, "the command line is wrong"),
    (3, "the daemon or the registry cannot be reached"),
    (4, "the answer broke off: what was printed is incomplete"),
    (5, "the time given with --timeout was over"),
    (6, "the daemon is busy: try again later"),
    (7, "a file, checkpoint or bundle is damaged or not what it should be"),
    (8, "some devices of a fleet did not do it; the report names each with its reason"),
    (9, "a rollout was stopped by its gate: too many devices failed"),
    (130, "interrupted with Ctrl-C"),
];

impl Failure {
    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Incomplete(_) => 4,
            Self::Deadline(_) => 5,
            Self::Busy(_) => 6,
            Self::Damaged(_) => 7,
            Self::Partly(_) => 8,
            Self::Stopped(_) => 9,
            Self::Interrupted => 130,
            Self::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    /// What to tell the person, if there is anything to tell.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Unreachable(message)
            | Self::Incomplete(message)
            | Self::Deadline(message)
            | Self::Busy(message)
            | Self::Damaged(message)
            | Self::Partly(message)
            | Self::Stopped(message) => Some(message),
            Self::Interrupted | Self::Killed(_) | Self::OutputClosed => None,
        }
    }

    /// Writes the message to standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            // Nowhere is left to complain when standard error itself is closed.
            let _ = writeln!(std::io::stderr(), "agent-cli: {}", crate::output::printable(message));
        }
        ExitCode::from(self.code())
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Unreachable { .. } => Self::Unreachable(text),
            RegistryError::Lost { .. } => Self::Incomplete(text),
            RegistryError::WrongBytes { .. }
            | RegistryError::KeepsDamaged { .. }
            | RegistryError::NotABundle { .. } => Self::Damaged(text),
            RegistryError::Bundle(error) => Self::from(*error),
            RegistryError::AuthFile { .. } | RegistryError::Setup { .. } => Self::Usage(text),
            _ => Self::Failed(text),
        }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match &error {
            // A bundle's own files are missing under its directory; this is the path that was given.
            BundleError::Missing { path, .. } if path.is_file() => Self::Damaged(format!(
                "{}: is a file, and a bundle is a directory: name the directory that `agent-cli export` or `agent-cli pull` wrote",
                path.display()
            )),
            BundleError::Missing { .. } | BundleError::Io { .. } => Self::Failed(error.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        let text = error.to_string();
        match error {
            PackError::Exists { .. } | PackError::NotABundle { .. } | PackError::Output { .. } => Self::Usage(text),
            PackError::WrongBytes { .. } | PackError::WrongSize { .. } => Self::Damaged(text),
            _ => Self::Failed(text),
        }
    }
}

/// The table of exit codes for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:");
    for (code, meaning) in CODES {
        text.push_str(&format!("\n  {code:>3}  {meaning}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use recurve_bundle::Bundle;

    use super::*;

    #[test]
    fn every_failure_has_a_documented_code() {
        let text = String::new;
        for failure in [
            Failure::Failed(text()),
            Failure::Usage(text()),
            Failure::Unreachable(text()),
            Failure::Incomplete(text()),
            Failure::Deadline(text()),
            Failure::Busy(text()),
            Failure::Damaged(text()),
            Failure::Partly(text()),
            Failure::Stopped(text()),
            Failure::Interrupted,
            Failure::OutputClosed,
        ] {
            let code = failure.code();
            assert!(CODES.iter().any(|(known, _)| *known == code), "{failure:?}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_bundle_is_called_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let failure = |path: &Path| Failure::from(Bundle::open(path).unwrap_err());
        let missing = dir.path().join("nowhere");
        assert!(matches!(failure(&missing), Failure::Failed(text) if text.contains("nowhere: not found")));
        assert!(matches!(failure(dir.path()), Failure::Failed(text) if text.contains("oci-layout: not found")));
        let file = dir.path().join("model.tar");
        std::fs::write(&file, "").unwrap();
        let Failure::Damaged(text) = failure(&file) else { panic!("{:?}", failure(&file)) };
        assert!(text.contains("model.tar: is a file, and a bundle is a directory"), "{text}");
    }

    #[test]
    fn the_page_of_exit_codes_has_every_code_in_the_same_words() {
        let page = include_str!("../../docs/exit-codes.md");
        for (code, meaning) in CODES {
            assert!(page.contains(&format!("| {code} | {meaning} |")), "{code}: {meaning}");
        }
    }
}
