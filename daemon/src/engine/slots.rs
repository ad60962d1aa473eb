//! The jobs that have a row of the slab, in the order of their rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recurve_text::Detokenizer;

use super::clock::Clock;
use super::emit::Emitter;
use super::job::{Event, Failure, FinishReason, Finished, Generation, Job, Scored, Usage, Work};
use super::plan::Row;
use super::sample::Sampler;
use crate::admission::Waiting;

/// A job with a row.
#[derive(Debug)]
pub(super) struct Slot {
    /// The request, for the log and the queue.
    pub(super) job: Job,
    /// Tells runs for this job from others.
    pub(super) tag: u64,
    /// When it came or last read of its prompt, counted over all jobs.
    pub(super) turn: u64,
    /// Tokens that the row's state has consumed.
    pub(super) position: u64,
    /// The position at which the model's logits were last seen to be finite, and with them the row's state.
    pub(super) verified: u64,
    /// Since when its caller does not read.
    pub(super) parked_since: Option<Instant>,
    pub(super) phase: Phase,
    pub(super) emitter: Emitter,
    clock: Arc<Clock>,
    completion_tokens: u64,
    /// Log-probabilities of a job that scores.
    pub(super) scores: Vec<f32>,
    pub(super) sampler: Option<Sampler>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reading its tokens; `position` tells how far.
    Prefill,
    /// This token was chosen and is not consumed yet.
    Decode(u32),
    /// As `Decode`, but its caller does not read.
    Parked(u32),
}

impl Slot {
    /// Gives a job its row; none if its caller is gone.
    pub(super) fn new(waiting: Waiting, turn: u64, detokenizer: Option<Detokenizer>) -> Option<Self> {
        let Waiting { job, tag, events, parked, clock } = waiting;
        let (stops, sampler): (&[String], _) = match &job.work {
            Work::Generate(generation) => {
                let Generation { sampling, top_logprobs, prompt, stop, .. } = generation;
                (stop, Some(Sampler::new(sampling.clone(), *top_logprobs, prompt)))
            }
            Work::Score(_) => (&[], None),
        };
        let emitter = Emitter::new(events, parked, detokenizer, stops)?;
        clock.has_slot();
        Some(Self {
            tag,
            turn,
            position: 0,
            verified: 0,
            parked_since: None,
            phase: Phase::Prefill,
            emitter,
            clock,
            completion_tokens: 0,
            scores: Vec::new(),
            sampler,
            job,
        })
    }

    /// The tokens that are read before anything is generated. A score's last token is only looked up, not read.
    pub(super) fn prompt(&self) -> &[u32] {
        match &self.job.work {
            Work::Generate(generation) => &generation.prompt,
            Work::Score(tokens) => &tokens[..tokens.len().saturating_sub(1)],
        }
    }

    /// What the plan needs to know. `max_chunk` and `max_logits` are the model's.
    pub(super) fn row(&self, max_chunk: usize, max_logits: usize) -> Row {
        match self.phase {
            Phase::Decode(_) => Row::Decode,
            Phase::Parked(_) => Row::Parked,
            Phase::Prefill => Row::Prefill {
                left: self.prompt().len() - self.consumed(),
                most: match self.job.work {
                    Work::Generate(_) => max_chunk,
                    Work::Score(_) => max_logits,
                },
                priority: self.job.priority,
                turn: self.turn,
            },
        }
    }

    /// Tokens of the prompt that were read.
    pub(super) fn consumed(&self) -> usize {
        // Never more than the prompt has.
        self.position as usize
    }

    /// How many trailing positions of the next `tokens` prompt tokens need logits.
    pub(super) fn logits_of(&self, tokens: usize) -> usize {
        match &self.job.work {
            Work::Score(_) => tokens,
            Work::Generate(generation) => {
                let last = self.consumed() + tokens == generation.prompt.len();
                usize::from(last && generation.max_tokens > 0)
            }
        }
    }

    /// The whole prompt was read.
    pub(super) fn note_read(&mut self) {
        self.clock.has_read();
    }

    /// A token was chosen.
    pub(super) fn note_token(&mut self) {
        self.clock.has_token();
        self.completion_tokens += 1;
    }

    /// Tokens generated so far.
    pub(super) fn completion_tokens(&self) -> u64 {
        self.completion_tokens
    }

    /// How long the job has had its row.
    pub(super) fn occupied(&self) -> Duration {
        self.clock.occupied()
    }

    /// The job failed: tells its caller.
    pub(super) fn fail(self, failure: Failure) {
        self.emitter.finish(Event::Failed(failure));
    }

    /// The job is done: tells its caller the rest.
    pub(super) fn finish(mut self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: match &self.job.work {
                Work::Generate(generation) => generation.prompt.len() as u64,
                Work::Score(tokens) => tokens.len() as u64,
            },
            completion_tokens: self.completion_tokens,
        };
        let timings = self.clock.timings();
        let end = match self.sampler {
            None => Event::Scored(Scored { logprobs: std::mem::take(&mut self.scores), usage, timings }),
            Some(sampler) => {
                // What was held back may still be a stop string.
                let reason = match (reason, self.emitter.flush()) {
                    (FinishReason::Stop(stop), _) | (_, Some(stop)) => FinishReason::Stop(stop),
                    (reason, None) => reason,
                };
                let seed = sampler.seed();
                Event::Finished(Finished { reason, usage, timings, seed })
            }
        };
        self.emitter.finish(end);
    }
}
