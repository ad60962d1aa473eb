//! Rows of carried state in our own memory, and the steps that take them forward.
//!
//! Each carried tensor is one slab `[rows, …]`. A step runs over consecutive rows: a prefix of the slab for a batch, a
//! single row for a prefill. Rings are bound as input and output at once, so that a step writes only the new slots. The
//! small states have two sides: a step reads one and writes the other, and only a step that succeeded turns them. So a
//! step that failed or was ended early changed nothing that counts: a ring's slot that it may have written holds a
//! position outside every window until a later step writes it again.

use std::collections::HashMap;
use std::ops::Range;

use crate::buffer::{Binding, Buffer};
use crate::model::{Model, ModelLayout, StateLayout};
use crate::terminate::Ended;

/// Most logits that one step gives, where a row alone does not need more: 16 MiB.
const MOST_LOGITS: usize = 4 << 20;

/// One step over consecutive rows, each with the same number of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The first row.
    pub first: usize,
    /// Tokens that each row has consumed so far; as many entries as there are rows.
    pub starts: &'a [u64],
    /// `[rows, tokens]`, each below the vocabulary size.
    pub ids: &'a [u32],
    /// How many trailing positions of each row need logits.
    pub logits: usize,
    /// What [`crate::Terminator::terminate`] ends it by.
    pub tag: Option<u64>,
}

/// What a step gave.
#[derive(Debug)]
pub struct Step<'a> {
    /// `[rows, logits, vocab]`.
    pub logits: &'a mut [f32],
}

/// Why a step did not happen. The rows are as they were before it.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It was ended by [`crate::Terminator::terminate`].
    #[error("the step was ended early")]
    Terminated,
    /// It took longer than a step may, and was ended.
    #[error("the step took longer than engine.step_limit allows, and was ended")]
    TooLong,
    /// ONNX Runtime failed.
    #[error("ONNX Runtime failed: {0}")]
    Failed(String),
}

/// The slabs of one model.
#[derive(Debug)]
pub(crate) struct Rows {
    count: usize,
    slabs: Vec<Slab>,
    /// Which side of its small states each row's present values lie on.
    sides: Vec<usize>,
    ids: Buffer<i64>,
    starts: Buffer<i64>,
    num_logits: Buffer<i64>,
    logits: Buffer<f32>,
    prepared: HashMap<Shape, Binding>,
}

/// One carried tensor of all rows.
#[derive(Debug)]
struct Slab {
    row: usize,
    /// One side for a ring, two for a small state.
    sides: Vec<Buffer<f32>>,
}

/// What a binding is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    first: usize,
    rows: usize,
    tokens: usize,
    logits: usize,
    side: usize,
}

impl Rows {
    /// All memory that stepping needs, taken now. None if the machine does not have it.
    pub(crate) fn new(layout: &ModelLayout, count: usize) -> Option<Self> {
        let slab = |state: &StateLayout| {
            let sides = if state.ring { 1 } else { 2 };
            let sides = (0..sides).map(|_| Buffer::zeroed(count.checked_mul(state.len())?)).collect::<Option<_>>()?;
            Some(Slab { row: state.len(), sides })
        };
        Some(Self {
            count,
            slabs: layout.states.iter().map(slab).collect::<Option<_>>()?,
            sides: vec![0; count],
            ids: Buffer::zeroed(count.max(layout.max_chunk))?,
            starts: Buffer::zeroed(count)?,
            num_logits: Buffer::zeroed(1)?,
            logits: Buffer::zeroed(count.max(logit_positions(layout)).checked_mul(layout.vocab)?)?,
            prepared: HashMap::new(),
        })
    }

    /// Brings the small states of these rows to one side, the one where most of them are.
    fn align(&mut self, rows: Range<usize>) -> usize {
        let on_one: usize = self.sides[rows.clone()].iter().sum();
        let side = usize::from(2 * on_one > rows.len());
        for row in rows {
            if self.sides[row] != side {
                for slab in &mut self.slabs {
                    let part = row * slab.row..(row + 1) * slab.row;
                    if let [zero, one] = slab.sides.as_mut_slice() {
                        let (from, to) = if side == 1 { (zero, one) } else { (one, zero) };
                        to.slice_mut()[part.clone()].copy_from_slice(&from.slice()[part]);
                    }
                }
                self.sides[row] = side;
            }
        }
        side
    }

    /// Zeros a row's small states, and with `rings` all of it.
    fn zero(&mut self, row: usize, rings: bool) {
        for slab in &mut self.slabs {
            if slab.sides.len() == 1 && !rings {
                continue;
            }
            for side in &mut slab.sides {
                side.slice_mut()[row * slab.row..(row + 1) * slab.row].fill(0.0);
            }
        }
        self.sides[row] = 0;
    }

    /// Puts all of a row over another one.
    fn copy(&mut self, from: usize, to: usize) {
        for slab in &mut self.slabs {
            for side in &mut slab.sides {
                side.slice_mut().copy_within(from * slab.row..(from + 1) * slab.row, to * slab.row);
            }
        }
        self.sides[to] = self.sides[from];
    }

    /// Exchanges two rows.
    fn swap(&mut self, a: usize, b: usize) {
        let (low, high) = (a.min(b), a.max(b));
        if low == high {
            return;
        }
        for slab in &mut self.slabs {
            for side in &mut slab.sides {
                let (head, tail) = side.slice_mut().split_at_mut(high * slab.row);
                head[low * slab.row..(low + 1) * slab.row].swap_with_slice(&mut tail[..slab.row]);
            }
        }
        self.sides.swap(a, b);
    }
}

/// Trailing positions of one row that a step can give logits for.
fn logit_positions(layout: &ModelLayout) -> usize {
    (MOST_LOGITS / layout.vocab).clamp(1, layout.max_chunk)
}

impl Model {
    /// Rows of carried state.
    pub fn rows(&self) -> usize {
        self.rows.count
    }

    /// Most trailing positions that a step of one row can give logits for; at least 1, at most the largest chunk.
    pub fn max_logits(&self) -> usize {
        logit_positions(&self.layout)
    }

    /// Puts a row back to the state before the first token. What its rings hold stays, behind the mask.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn reset(&mut self, row: usize) {
        self.rows.zero(row, false);
    }

    /// Zeros all of a row. Needed where it may hold values that are not finite: those would come through the mask.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn scrub(&mut self, row: usize) {
        self.rows.zero(row, true);
    }

    /// Exchanges the state of two rows.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.rows.swap(a, b);
    }

    /// Puts the state of a row over another one's.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.rows.copy(from, to);
    }

    /// Takes rows forward by the given tokens.
    ///
    /// # Errors
    /// ONNX Runtime failed, or the step was ended early; the rows are then as they were before.
    ///
    /// # Panics
    /// If the batch has no rows, rows or tokens that there are not, or asks for more logits than there is room for.
    pub fn step(&mut self, batch: Batch<'_>) -> Result<Step<'_>, StepError> {
        let count = batch.starts.len();
        assert!(count > 0 && batch.first + count <= self.rows.count, "rows {} + {count}", batch.first);
        let tokens = batch.ids.len() / count;
        assert!(tokens > 0 && batch.ids.len() == count * tokens, "each row has the same number of tokens");
        assert!(
            tokens <= self.layout.max_chunk && (count == 1 || tokens == 1),
            "a chunk of one row, or one token of many"
        );
        assert!(batch.logits <= tokens && batch.logits <= self.max_logits(), "{} logits", batch.logits);
        assert!(batch.ids.iter().all(|&id| (id as usize) < self.layout.vocab), "tokens of the vocabulary");

        let rows = &mut self.rows;
        let all = batch.first..batch.first + count;
        let shape =
            Shape { first: batch.first, rows: count, tokens, logits: batch.logits, side: rows.align(all.clone()) };
        for (slot, id) in rows.ids.slice_mut().iter_mut().zip(batch.ids) {
            *slot = i64::from(*id);
        }
        for (slot, start) in rows.starts.slice_mut().iter_mut().zip(batch.starts) {
            // A position above 2^63 takes longer than the universe has existed.
            *slot = *start as i64;
        }
        rows.num_logits.slice_mut()[0] = batch.logits as i64;
        self.run(shape, batch.tag)?;
        self.rows.sides[all].fill(1 - shape.side);
        let given = count * batch.logits * self.layout.vocab;
        Ok(Step { logits: &mut self.rows.logits.slice_mut()[..given] })
    }

    fn run(&mut self, shape: Shape, tag: Option<u64>) -> Result<(), StepError> {
        // Kept: the shapes of every decode and of whole chunks. The tail of a prompt comes in any length: made for once.
        let keep = (shape.tokens == 1 || shape.tokens == self.layout.max_chunk) && shape.logits <= 1;
        let binding = match self.rows.prepared.remove(&shape) {
            Some(binding) => binding,
            None => self.bind(shape).map_err(|error| StepError::Failed(error.to_string()))?,
        };
        self.terminator.begin(tag);
        let result = self.session.run_binding_with_options(&binding.io, self.terminator.options()).map(drop);
        let ended = self.terminator.end();
        if keep {
            self.rows.prepared.insert(shape, binding);
        }
        match (result, ended) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(Ended::Unwanted)) => Err(StepError::Terminated),
            (Err(_), Some(Ended::TooLong)) => Err(StepError::TooLong),
            (Err(error), None) => Err(StepError::Failed(error.to_string())),
        }
    }

    fn bind(&self, shape: Shape) -> ort::Result<Binding> {
        let rows = &self.rows;
        let allocator = self.session.allocator();
        let mut binding = Binding::new(&self.session)?;
        let ids = rows.ids.tensor(0..shape.rows * shape.tokens, &[shape.rows, shape.tokens], allocator)?;
        binding.bind(ids, Some("input_ids"), None)?;
        let starts = rows.starts.tensor(0..shape.rows, &[shape.rows], allocator)?;
        binding.bind(starts, Some("start"), None)?;
        binding.bind(rows.num_logits.tensor(0..1, &[1], allocator)?, Some("num_logits"), None)?;
        let dims = [shape.rows, shape.logits, self.layout.vocab];
        let logits = rows.logits.tensor(0..dims.iter().product(), &dims, allocator)?;
        binding.bind(logits, None, Some("logits"))?;
        for (state, slab) in self.layout.states.iter().zip(&rows.slabs) {
            let part = shape.first * slab.row..(shape.first + shape.rows) * slab.row;
            let mut dims = vec![shape.rows];
            dims.extend(&state.shape);
            let (input, output) = (state.name.as_str(), format!("{}.out", state.name));
            match slab.sides.as_slice() {
                [ring] => binding.bind(ring.tensor(part, &dims, allocator)?, Some(input), Some(&output))?,
                sides => {
                    let (from, to) = (&sides[shape.side], &sides[1 - shape.side]);
                    binding.bind(from.tensor(part.clone(), &dims, allocator)?, Some(input), None)?;
                    binding.bind(to.tensor(part, &dims, allocator)?, None, Some(&output))?;
                }
            }
        }
        Ok(binding)
    }
}
