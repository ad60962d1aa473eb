//! The heads of a recurrent block, on all threads.

#![allow(unsafe_code)]

use std::cell::RefCell;

use super::Floats;
use super::recurrent::{Head, HeadOutput, HeadScratch, RecurrentShape, RecurrentWeights};
use crate::pool::Pool;
use crate::shared::SharedSlice;

/// What a step reads.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentStep<'a> {
    /// Sizes.
    pub shape: RecurrentShape,
    /// The block's weights.
    pub weights: RecurrentWeights<'a>,
    /// `[rows, tokens, 2 · width]`: the branch that gates the output beside the one that is recurred.
    pub branches: &'a [f32],
    /// `[rows, taps - 1, width]`: the last inputs of the convolution.
    pub conv: &'a [f32],
    /// `[rows, width]`: the hidden state.
    pub lru: &'a [f32],
    /// `[rows, tokens]`: 0 at position 0, 1 after it.
    pub continues: &'a [f32],
}

/// What a step writes.
#[derive(Debug)]
pub struct RecurrentOutput<'a> {
    /// `[rows, tokens, width]`.
    pub mixed: &'a mut [f32],
    /// `[rows, taps - 1, width]`.
    pub conv: &'a mut [f32],
    /// `[rows, width]`.
    pub lru: &'a mut [f32],
}

/// One head's results before they are put among the others'.
#[derive(Default)]
struct Local {
    scratch: HeadScratch,
    mixed: Vec<f32>,
    conv: Vec<f32>,
    lru: Vec<f32>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

impl RecurrentStep<'_> {
    fn check(&self, out: &RecurrentOutput<'_>) {
        let RecurrentShape { rows, tokens, heads, gate, taps } = self.shape;
        let (width, count) = (self.shape.width(), rows * tokens);
        assert!(taps > 0 && self.weights.taps.len() == taps, "weights for {taps} taps");
        let sizes = [
            (self.branches.len(), 2 * count * width),
            (self.continues.len(), count),
            (self.conv.len(), rows * (taps - 1) * width),
            (self.lru.len(), rows * width),
            (self.weights.gates.len(), 2 * heads * gate * gate),
            (self.weights.gates_bias.len(), 2 * width),
            (self.weights.log_decay.len(), width),
            (self.weights.conv_bias.len(), width),
            (out.mixed.len(), count * width),
            (out.conv.len(), rows * (taps - 1) * width),
            (out.lru.len(), rows * width),
        ];
        for (i, (found, needed)) in sizes.into_iter().enumerate() {
            assert_eq!(found, needed, "operand {i} of a recurrent step of {:?}", self.shape);
        }
        assert!(self.weights.taps.iter().all(|tap| tap.len() == width), "{width} weights for each tap");
    }
}

/// Convolution, gates, recurrence and the gating of the output.
///
/// # Panics
/// If a slice has not the size that the shape needs.
pub fn recurrent(pool: &mut Pool, step: &RecurrentStep<'_>, out: &mut RecurrentOutput<'_>) {
    recurrent_with(&Floats::best(), pool, step, out);
}

/// The same with these functions.
pub(crate) fn recurrent_with(
    floats: &Floats,
    pool: &mut Pool,
    step: &RecurrentStep<'_>,
    out: &mut RecurrentOutput<'_>,
) {
    step.check(out);
    let RecurrentShape { rows, tokens, heads, gate, taps } = step.shape;
    let (width, count, kept) = (step.shape.width(), rows * tokens, rows * (taps - 1));
    let [mixed, conv, lru] = [&mut *out.mixed, &mut *out.conv, &mut *out.lru].map(SharedSlice::new);
    pool.run(heads, &|head| {
        let input = Head {
            shape: step.shape,
            weights: step.weights,
            branches: step.branches,
            conv: step.conv,
            lru: step.lru,
            continues: step.continues,
            head,
        };
        LOCAL.with_borrow_mut(|local| {
            local.mixed.resize(count * gate, 0.0);
            local.conv.resize(kept * gate, 0.0);
            local.lru.resize(rows * gate, 0.0);
            let mut own = HeadOutput { mixed: &mut local.mixed, conv: &mut local.conv, lru: &mut local.lru };
            floats.head(&input, &mut own, &mut local.scratch);
            for (from, to) in [(&local.mixed, &mixed), (&local.conv, &conv), (&local.lru, &lru)] {
                for (row, values) in from.chunks_exact(gate).enumerate() {
                    // SAFETY: a head's channels are one part's.
                    unsafe { to.part(row * width + head * gate, gate) }.copy_from_slice(values);
                }
            }
        });
    });
}
