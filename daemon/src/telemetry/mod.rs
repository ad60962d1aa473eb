//! What is measured, kept and sent on.

pub mod host;
