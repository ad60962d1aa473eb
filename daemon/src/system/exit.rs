//! Exit codes, by the names and numbers of `sysexits.h`.

use recurve_bundle::BundleError;

use crate::store::StoreError;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// The bundle is damaged or not of a kind that this version serves.
pub const DATA: u8 = 65;
/// The bundle does not exist or cannot be read.
pub const NO_INPUT: u8 = 66;
/// An address cannot be listened on, or ONNX Runtime is missing or unsuitable.
pub const UNAVAILABLE: u8 = 69;
/// The engine failed while serving.
pub const SOFTWARE: u8 = 70;
/// The system refused threads, signals, memory for locked weights, or the state directory.
pub const OS: u8 = 71;
/// Standard output cannot be written to.
pub const IO: u8 = 74;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// Every exit code and what it means, in the words of `--help`, of the manual page and of `docs/exit-codes.md`.
pub const CODES: [(u8, &str); 9] = [
    (0, "stopped by SIGTERM or SIGINT"),
    (USAGE, "wrong command line"),
    (DATA, "the bundle is damaged or not of a kind that this version serves"),
    (NO_INPUT, "the bundle does not exist or cannot be read"),
    (UNAVAILABLE, "an address cannot be listened on, or ONNX Runtime is missing or unsuitable"),
    (SOFTWARE, "the engine failed while serving; the log says why"),
    (OS, "the system refused threads, signals, memory for locked weights, or the state directory"),
    (IO, "standard output cannot be written to, a full disk for instance"),
    (CONFIG, "wrong configuration; all problems are listed"),
];

/// The table of exit codes for `--help`.
pub fn help() -> String {
    let rows = CODES.map(|(code, meaning)| format!("\n  {code:>2}  {meaning}"));
    format!("Exit codes:{}", rows.concat())
}

/// The code for a bundle that cannot be opened.
pub fn of_bundle(error: &BundleError) -> u8 {
    match error {
        BundleError::Missing { .. } | BundleError::Io { .. } => NO_INPUT,
        _ => DATA,
    }
}

/// The code for a store that cannot be used.
pub fn of_store(error: &StoreError) -> u8 {
    match error {
        StoreError::Bundle(error) => of_bundle(error),
        StoreError::Damaged { .. } | StoreError::Newer { .. } => DATA,
        _ => OS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_exit_codes_has_every_code_in_the_same_words() {
        let page = include_str!("../../../docs/exit-codes.md");
        for (code, meaning) in CODES {
            assert!(page.contains(&format!("| {code} | {meaning} |")), "{code}: {meaning}");
        }
    }
}
