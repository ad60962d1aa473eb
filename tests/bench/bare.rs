//! The bare loop: a bundle's graph stepped in this process, with nothing around it.

use std::time::{Duration, Instant};

use recurve_bundle::StateKind;
use recurve_runtime::{Batch, Model, ModelLayout, Options, StateLayout, StepError};
use recurve_tests::graph;

use crate::Failure;
use crate::args::Kind;
use crate::subject::Subject;

/// A loaded graph.
pub(crate) struct Bare {
    model: Model,
    /// Advances with every token, so that steps read other embeddings each time.
    next: u32,
}

impl Bare {
    /// Loads the graph as the daemon does by default.
    ///
    /// # Errors
    /// There is no ONNX Runtime, or the graph cannot be loaded.
    pub(crate) fn load(subject: &Subject, kind: Kind, rows: usize, threads: usize) -> Result<Self, Failure> {
        let info = subject.bundle.info();
        let layout = ModelLayout {
            vocab: info.vocab_size as usize,
            max_chunk: info.max_chunk as usize,
            states: info
                .states
                .iter()
                .map(|state| StateLayout {
                    name: state.name.clone(),
                    shape: state.shape.iter().map(|&dim| dim as usize).collect(),
                    ring: matches!(state.kind, StateKind::K | StateKind::V),
                })
                .collect(),
        };
        let options = Options { threads, spinning: false, rows, kernels: kind.choice(), step_limit: None };
        let model = Model::load(graph::find_library()?, &subject.bundle.graph_path(), layout, &options)?;
        Ok(Self { model, next: 0 })
    }

    /// Whose kernels compute: the instruction set of ours, or `onnxruntime`.
    pub(crate) fn kernels(&self) -> &'static str {
        self.model.kernels()
    }

    /// One token for each of the first `rows` rows, which are at this position; the best next token of the first row.
    ///
    /// # Errors
    /// ONNX Runtime failed.
    pub(crate) fn decode(&mut self, rows: usize, position: u64) -> Result<u32, StepError> {
        let ids = self.ids(rows);
        self.step(&vec![position; rows], &ids)
    }

    /// Seconds a step, over `steps` of them from this position on, after one that does not count.
    ///
    /// # Errors
    /// ONNX Runtime failed.
    pub(crate) fn visit(&mut self, rows: usize, position: u64, steps: u32) -> Result<f64, StepError> {
        self.decode(rows, position)?;
        let begun = Instant::now();
        for step in 0..u64::from(steps) {
            self.decode(rows, position + 1 + step)?;
        }
        Ok(begun.elapsed().as_secs_f64() / f64::from(steps))
    }

    /// What one step takes, roughly.
    ///
    /// # Errors
    /// ONNX Runtime failed.
    pub(crate) fn step_time(&mut self, rows: usize, position: u64) -> Result<Duration, StepError> {
        self.visit(rows, position, 1)?;
        Ok(Duration::from_secs_f64(self.visit(rows, position, 2)?))
    }

    /// Reads a prompt of this many tokens into the first row, in chunks as the daemon does; seconds until the first new
    /// token is known.
    ///
    /// # Errors
    /// ONNX Runtime failed.
    pub(crate) fn prefill(&mut self, tokens: usize) -> Result<f64, StepError> {
        let chunk = self.model.layout().max_chunk;
        self.model.reset(0);
        let begun = Instant::now();
        for from in (0..tokens).step_by(chunk) {
            let count = chunk.min(tokens - from);
            let (ids, last) = (self.ids(count), from + count == tokens);
            let batch = Batch { first: 0, starts: &[from as u64], ids: &ids, logits: usize::from(last), tag: None };
            let step = self.model.step(batch)?;
            if last {
                best(step.logits);
            }
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// A greedy generation of `tokens` tokens after the prompt; seconds a token from the first to the last.
    ///
    /// # Errors
    /// ONNX Runtime failed.
    pub(crate) fn generate(&mut self, prompt: &[u32], tokens: u32) -> Result<f64, StepError> {
        self.model.reset(0);
        let mut next = self.step(&[0], prompt)?;
        let begun = Instant::now();
        for position in 0..u64::from(tokens - 1) {
            next = self.step(&[prompt.len() as u64 + position], &[next])?;
        }
        Ok(begun.elapsed().as_secs_f64() / f64::from(tokens - 1))
    }

    fn step(&mut self, starts: &[u64], ids: &[u32]) -> Result<u32, StepError> {
        let vocab = self.model.layout().vocab;
        let step = self.model.step(Batch { first: 0, starts, ids, logits: 1, tag: None })?;
        Ok(best(&step.logits[..vocab]))
    }

    /// Tokens from all over the vocabulary.
    fn ids(&mut self, count: usize) -> Vec<u32> {
        let vocab = u32::try_from(self.model.layout().vocab).unwrap_or(u32::MAX);
        let mut id = || {
            self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.next >> 8) % vocab
        };
        (0..count).map(|_| id()).collect()
    }
}

/// The token with the highest logit.
fn best(logits: &[f32]) -> u32 {
    (0..).zip(logits).fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best }).0
}
