//! What the engine tells of itself while it runs, for others to read. Written by its thread alone, a few stores a tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of one model that was loaded.
#[derive(Debug, Default)]
pub struct Meter {
    rows: AtomicU64,
    backlog: AtomicU64,
    input: AtomicU64,
    output: AtomicU64,
    rounds: AtomicU64,
    rests: AtomicBool,
}

impl Meter {
    /// Rows that are in use.
    pub fn active_rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Prompt tokens of jobs with a row that are still to be read.
    pub fn prefill_backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Prompt tokens read since the model was loaded.
    pub fn input_tokens(&self) -> u64 {
        self.input.load(Ordering::Relaxed)
    }

    /// Tokens made since then.
    pub fn output_tokens(&self) -> u64 {
        self.output.load(Ordering::Relaxed)
    }

    /// How often the engine's loop went round since the model was loaded.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Whether the engine waits for somebody.
    pub fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    /// The loop goes round once more.
    pub fn goes_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// The engine waits for somebody from now on, or no more.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// How it stands.
    pub fn stands(&self, rows: usize, backlog: usize) {
        self.rows.store(rows as u64, Ordering::Relaxed);
        self.backlog.store(backlog as u64, Ordering::Relaxed);
    }

    /// Prompt tokens were read.
    pub fn read(&self, tokens: usize) {
        self.input.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// A token was made for each of these rows.
    pub fn made(&self, tokens: usize) {
        self.output.fetch_add(tokens as u64, Ordering::Relaxed);
    }
}
