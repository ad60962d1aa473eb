//! The causal depthwise convolution in front of the recurrence.

use super::Emit;
use super::position::Position;
use crate::onnx::builder::{ONNX, Val};
use crate::shapes::{StateKind, layer_tensor};
use crate::shard::Recipe;

/// `y[t] = bias + Σ_j w[j] · x[t - taps + 1 + j]` for `x [rows, tokens, width]`; the state holds the inputs before `x`.
/// One multiply-add a tap over the concatenation of state and input: as fast as a fused operator at one token.
pub(crate) fn conv(e: &mut Emit<'_>, layer: usize, x: &Val, position: &Position) -> Val {
    let (width, taps) = (e.config.lru_width, e.config.conv_width);
    let (before, after) = e.state(StateKind::Conv, layer);
    let all = e.g.op("Concat", &[&before, x], vec![crate::onnx::builder::int("axis", 1)]);
    let name = e.g.fresh("conv.bias");
    let bias = Recipe::Vectors(vec![(layer_tensor(layer, "temporal_block.conv_1d.bias"), width)]);
    let mut sum = e.shards.tensor(name, &[width], bias);
    for tap in 0..taps {
        let from = e.g.i64s(&[tap as i64]);
        let to = e.g.op("Add", &[&position.tokens, &from], vec![]);
        let shifted = e.g.slice(&all, &from, &to, 1);
        let recipe =
            Recipe::Tap { source: layer_tensor(layer, "temporal_block.conv_1d.weight"), channels: width, taps, tap };
        let name = e.g.fresh("conv.tap");
        let weight = e.shards.tensor(name, &[width], recipe);
        let part = e.g.op("Mul", &[&shifted, &weight], vec![]);
        sum = e.g.op("Add", &[&sum, &part], vec![]);
    }
    let kept = e.g.i64s(&[taps as i64 - 1]);
    let end = e.g.op("Add", &[&position.tokens, &kept], vec![]);
    let axis = e.g.i64s(&[1]);
    e.g.node(ONNX, "Slice", &[&all, &position.tokens, &end, &axis], &[after], vec![]);
    sum
}
