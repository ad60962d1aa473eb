//! One file for each subcommand: its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod bundle;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod detokenize;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod node;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rollback;
pub(crate) mod score;
pub(crate) mod status;
pub(crate) mod telemetry;
pub(crate) mod tokenize;
pub(crate) mod top;
pub(crate) mod trust;
