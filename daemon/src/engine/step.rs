//! The engine's loop: the only code that steps the model. Each tick takes in jobs, plans, runs one decode step and one
//! bounded piece of a prompt, and hands the tokens on. It does no disk or network I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use recurve_runtime::{Batch, Model, StepError};
use recurve_text::{Detokenizer, Tokenizer};
use tracing::{debug, error};

use super::draw::{largest, log_sum_exp};
use super::emit::Flow;
use super::job::{Failure, FinishReason, Work};
use super::meter::Meter;
use super::plan::plan;
use super::sample::NotFinite;
use super::slots::{Phase, Slot};
use crate::admission::{Admission, Waiting};

/// The longest that a piece of somebody's prompt may hold up running streams, where no budget is configured.
const PREFILL_GAP: Duration = Duration::from_millis(250);
/// The least of a prompt that is read at a time: smaller pieces read the weights again for almost nothing.
const LEAST_BUDGET: usize = 16;
/// The longest that a caller who does not read keeps its row while others wait.
const MOST_STALL: Duration = Duration::from_secs(30);
/// Logits from which on the rows of a step are sampled side by side: below it, waking threads takes longer.
const MANY_LOGITS: usize = 1 << 16;
/// Steps that fail one after another before the engine gives up.
const MOST_FAILURES: u32 = 3;

/// What the loop owns.
pub(super) struct Stepper {
    model: Model,
    admission: Arc<Admission>,
    tokenizer: Option<Arc<Tokenizer>>,
    /// The jobs, in the order of their rows: job `i` has row `i`.
    slots: Vec<Slot>,
    /// Most prompt tokens beside running streams, where it is configured.
    budget: Option<usize>,
    /// Time of one prompt token, smoothed.
    per_token: Option<Duration>,
    /// Counts jobs that came and pieces of prompts that were read.
    turns: u64,
    failures: u32,
    meter: Arc<Meter>,
}

impl Stepper {
    pub(super) fn new(
        model: Model,
        admission: Arc<Admission>,
        tokenizer: Option<Arc<Tokenizer>>,
        budget: Option<usize>,
        meter: Arc<Meter>,
    ) -> Self {
        Self { model, admission, tokenizer, slots: Vec::new(), budget, per_token: None, turns: 0, failures: 0, meter }
    }

    /// Runs until the daemon stops.
    ///
    /// # Errors
    /// The model failed again and again.
    pub(super) fn run(mut self) -> Result<(), String> {
        loop {
            self.meter.goes_round();
            let closed = self.admission.closed();
            if closed.is_some_and(|deadline| deadline <= Instant::now()) {
                self.end_all();
            }
            self.sweep();
            self.admit();
            if closed.is_some() && self.slots.is_empty() && self.admission.waiting() == 0 {
                self.tell();
                return Ok(());
            }
            if !self.tick()? {
                self.tell();
                self.meter.rest(true);
                self.admission.wait(self.alarm());
                self.meter.rest(false);
            }
        }
    }

    /// Tells how it stands.
    fn tell(&self) {
        let left = |slot: &Slot| match slot.phase {
            Phase::Prefill => slot.prompt().len() - slot.consumed(),
            Phase::Decode(_) | Phase::Parked(_) => 0,
        };
        self.meter.stands(self.slots.len(), self.slots.iter().map(left).sum());
    }

    /// Frees the rows of callers that are gone, whose time is over, or who do not read while others wait; and lets rows
    /// go on whose callers read again.
    fn sweep(&mut self) {
        let now = Instant::now();
        let mut i = 0;
        while i < self.slots.len() {
            let full = self.slots.len() == self.model.rows();
            let slot = &mut self.slots[i];
            if slot.emitter.is_closed() {
                let slot = self.remove(i);
                debug!(request = %slot.job.id, tokens = slot.completion_tokens(), "cancelled by its caller");
                continue;
            }
            if slot.job.deadline.is_some_and(|deadline| deadline <= now) {
                self.remove(i).fail(Failure::Deadline);
                continue;
            }
            if let Phase::Parked(token) = slot.phase {
                let since = *slot.parked_since.get_or_insert(now);
                if slot.emitter.send() == Flow::Ready {
                    slot.phase = Phase::Decode(token);
                    slot.parked_since = None;
                } else if full && now.duration_since(since) >= MOST_STALL && self.admission.waiting() > 0 {
                    self.remove(i).fail(Failure::Stalled { seconds: MOST_STALL.as_secs() });
                    continue;
                }
            }
            i += 1;
        }
    }

    /// When something has to be done although nothing happens.
    fn alarm(&self) -> Option<Instant> {
        let stalled = self.slots.iter().filter_map(|slot| slot.parked_since).map(|since| since + MOST_STALL);
        let deadlines = self.slots.iter().filter_map(|slot| slot.job.deadline);
        // A stall that is over has to be looked at when somebody comes, and coming wakes the engine.
        let now = Instant::now();
        let ends = self.admission.last_turn().or_else(|| self.admission.closed());
        deadlines.chain(stalled.filter(|&at| at > now)).chain(ends).min()
    }

    fn admit(&mut self) {
        for waiting in self.admission.take(self.model.rows() - self.slots.len()) {
            let client = waiting.job.client.clone();
            match self.slot(waiting) {
                None => self.admission.done(&client, Duration::ZERO),
                Some(slot) => {
                    self.model.reset(self.slots.len());
                    self.slots.push(slot);
                    let last = self.slots.len() - 1;
                    // A score of one token has nothing to read.
                    if self.slots[last].prompt().is_empty() {
                        self.finish(last, FinishReason::MaxTokens);
                    }
                }
            }
        }
    }

    fn slot(&mut self, waiting: Waiting) -> Option<Slot> {
        self.turns += 1;
        let detokenizer = self.tokenizer.clone().map(Detokenizer::new);
        Slot::new(waiting, self.turns, detokenizer)
    }

    /// One decode step and one piece of a prompt; whether there was anything to do.
    fn tick(&mut self) -> Result<bool, String> {
        self.tell();
        let (max_chunk, max_logits) = (self.model.layout().max_chunk, self.model.max_logits());
        let rows: Vec<_> = self.slots.iter().map(|slot| slot.row(max_chunk, max_logits)).collect();
        let plan = plan(&rows, self.prefill_budget());
        for &(a, b) in &plan.swaps {
            self.model.swap(a, b);
            self.slots.swap(a, b);
        }
        // The prompt first: its row lies behind the prefix, which a stream that ends would change.
        if let Some((row, tokens)) = plan.prefill {
            self.prefill(row, tokens)?;
        }
        if plan.decode > 0 {
            self.decode(plan.decode)?;
        }
        Ok(plan.decode > 0 || plan.prefill.is_some())
    }

    fn prefill_budget(&self) -> usize {
        let most = self.model.layout().max_chunk;
        match (self.budget, self.per_token) {
            (Some(budget), _) => budget.min(most),
            (None, None) => LEAST_BUDGET.min(most),
            (None, Some(one)) => {
                let fit = PREFILL_GAP.as_secs_f64() / one.as_secs_f64().max(1e-9);
                (fit as usize).clamp(LEAST_BUDGET.min(most), most)
            }
        }
    }

    /// Reads the next `tokens` of the row's prompt.
    fn prefill(&mut self, row: usize, tokens: usize) -> Result<(), String> {
        let slot = &self.slots[row];
        let from = slot.consumed();
        let batch = Batch {
            first: row,
            starts: &[slot.position],
            ids: &slot.prompt()[from..from + tokens],
            logits: slot.logits_of(tokens),
            tag: Some(slot.tag),
        };
        let begun = Instant::now();
        let result = self.model.step(batch);
        let slot = &mut self.slots[row];
        let outcome = match result {
            Ok(step) => {
                self.turns += 1;
                slot.turn = self.turns;
                slot.position += tokens as u64;
                self.meter.read(tokens);
                let made = slot.completion_tokens();
                let outcome = after_prefill(slot, step.logits, from);
                self.meter.made((slot.completion_tokens() - made) as usize);
                outcome
            }
            // Its caller is gone: the next sweep frees the row.
            Err(StepError::Terminated) => return Ok(()),
            Err(error) => return self.step_failed(row..row + 1, &error),
        };
        self.failures = 0;
        self.learn(begun.elapsed(), tokens);
        self.settle(row, outcome);
        Ok(())
    }

    /// How long a prompt token takes; the last few of a prompt say little of the others.
    fn learn(&mut self, took: Duration, tokens: usize) {
        if tokens < LEAST_BUDGET {
            return;
        }
        let one = took / u32::try_from(tokens).unwrap_or(u32::MAX);
        self.per_token = Some(self.per_token.map_or(one, |known| (known * 3 + one) / 4));
    }

    /// One token of each of the first rows.
    fn decode(&mut self, rows: usize) -> Result<(), String> {
        let starts: Vec<u64> = self.slots[..rows].iter().map(|slot| slot.position).collect();
        let ids: Vec<u32> = self.slots[..rows]
            .iter()
            .map(|slot| match slot.phase {
                Phase::Decode(token) | Phase::Parked(token) => token,
                // The plan counts only rows that decode; token 0 is in every vocabulary.
                Phase::Prefill => 0,
            })
            .collect();
        let batch = Batch { first: 0, starts: &starts, ids: &ids, logits: 1, tag: None };
        let vocab = self.model.layout().vocab;
        let outcomes: Vec<Outcome> = match self.model.step(batch) {
            Ok(step) => {
                let next = |(logits, slot): (&mut [f32], &mut Slot)| {
                    slot.position += 1;
                    choose(slot, logits)
                };
                match rows > 1 && step.logits.len() >= MANY_LOGITS {
                    true => step.logits.par_chunks_exact_mut(vocab).zip(&mut self.slots[..rows]).map(next).collect(),
                    false => step.logits.chunks_exact_mut(vocab).zip(&mut self.slots[..rows]).map(next).collect(),
                }
            }
            Err(error) => return self.step_failed(0..rows, &error),
        };
        self.failures = 0;
        self.meter.made(rows);
        // From the last row on: a row that leaves moves only rows behind it, which are settled already.
        for (row, outcome) in outcomes.into_iter().enumerate().rev() {
            self.settle(row, outcome);
        }
        Ok(())
    }

    fn settle(&mut self, row: usize, outcome: Outcome) {
        match outcome {
            Outcome::Goes => {}
            Outcome::Ends(reason) => self.finish(row, reason),
            Outcome::Gone => drop(self.remove(row)),
            Outcome::NotFinite(whose) => {
                let slot = self.remove(row);
                let position = slot.position.saturating_sub(1);
                slot.fail(match whose {
                    NotFinite::Model => Failure::NotFinite { position },
                    NotFinite::Adjusted => Failure::Adjusted { position },
                });
            }
        }
    }

    fn finish(&mut self, row: usize, reason: FinishReason) {
        self.remove(row).finish(reason);
    }

    /// Takes a job's row away; the last row moves into its place.
    fn remove(&mut self, row: usize) -> Slot {
        let last = self.slots.len() - 1;
        let slot = self.slots.swap_remove(row);
        if row < last {
            self.model.copy(last, row);
        }
        // A value that is not finite would come through the mask of the next job.
        let unverified = if row < last { &self.slots[row] } else { &slot };
        if unverified.position != unverified.verified {
            self.model.scrub(last);
        }
        self.admission.done(&slot.job.client, slot.occupied());
        slot
    }

    /// Ends the jobs of these rows; an engine that fails again and again, or that a step kept too long, ends altogether.
    fn step_failed(&mut self, rows: std::ops::Range<usize>, error: &StepError) -> Result<(), String> {
        self.failures += 1;
        let reason = error.to_string();
        error!(reason, failures = self.failures, "a step failed");
        for row in rows.rev() {
            self.remove(row).fail(Failure::Engine(reason.clone()));
        }
        match error {
            StepError::TooLong => Err(reason),
            _ if self.failures < MOST_FAILURES => Ok(()),
            _ => Err(format!("{} steps failed one after another, the last one because {reason}", self.failures)),
        }
    }

    /// The grace period is over.
    fn end_all(&mut self) {
        while !self.slots.is_empty() {
            let slot = self.remove(0);
            match (&slot.job.work, slot.phase) {
                (Work::Generate(_), Phase::Decode(_) | Phase::Parked(_)) => slot.finish(FinishReason::Shutdown),
                _ => slot.fail(self.admission.ended()),
            }
        }
    }
}

/// What became of a job in a step.
enum Outcome {
    Goes,
    Ends(FinishReason),
    Gone,
    NotFinite(NotFinite),
}

/// A piece of the prompt was read, from token `from` on.
fn after_prefill(slot: &mut Slot, logits: &mut [f32], from: usize) -> Outcome {
    let read = slot.consumed() == slot.prompt().len();
    if read {
        slot.note_read();
    }
    match &slot.job.work {
        Work::Score(tokens) => {
            let next = &tokens[from + 1..=slot.consumed()];
            let vocab = logits.len() / next.len();
            for (logits, &token) in logits.chunks_exact(vocab).zip(next) {
                let Some(most) = largest(logits) else { return Outcome::NotFinite(NotFinite::Model) };
                let logprob = f64::from(logits[token as usize]) - log_sum_exp(logits, most);
                slot.scores.push(logprob as f32);
            }
            slot.verified = slot.position;
            if read { Outcome::Ends(FinishReason::MaxTokens) } else { Outcome::Goes }
        }
        Work::Generate(_) if !read => Outcome::Goes,
        Work::Generate(generation) if generation.max_tokens == 0 => Outcome::Ends(FinishReason::MaxTokens),
        Work::Generate(_) => choose(slot, logits),
    }
}

/// Chooses the row's next token and hands it on.
fn choose(slot: &mut Slot, logits: &mut [f32]) -> Outcome {
    let (Some(sampler), Work::Generate(generation)) = (&mut slot.sampler, &slot.job.work) else {
        return Outcome::Goes;
    };
    let choice = sampler.choose(logits);
    if choice != Err(NotFinite::Model) {
        slot.verified = slot.position;
    }
    let choice = match choice {
        Ok(choice) => choice,
        Err(whose) => return Outcome::NotFinite(whose),
    };
    let token = choice.token;
    let (ends, most) = (generation.ends.contains(&token), u64::from(generation.max_tokens));
    slot.note_token();
    if let Some(stop) = slot.emitter.push(choice) {
        return Outcome::Ends(FinishReason::Stop(stop));
    }
    if ends {
        return Outcome::Ends(FinishReason::EndOfText);
    }
    if slot.completion_tokens() >= most {
        return Outcome::Ends(FinishReason::MaxTokens);
    }
    match slot.emitter.send() {
        Flow::Ready => slot.phase = Phase::Decode(token),
        Flow::Full => slot.phase = Phase::Parked(token),
        Flow::Gone => return Outcome::Gone,
    }
    Outcome::Goes
}
