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
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

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
        StoreError::Damaged { .. } => DATA,
        _ => OS,
    }
}
