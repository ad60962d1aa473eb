//! The causal depthwise convolution in front of the recurrence.

use recurve_onnx::AttributeProto;

use super::Emit;
use crate::builder::{Builder, ONNX, Val, int};
use crate::config::ModelConfig;
use crate::shapes::layer_tensor;
use crate::shard::Recipe;

/// The bias `[width]` and then each tap's weights `[width]`, the one of the oldest input first.
pub(crate) fn weights(e: &mut Emit<'_>, layer: usize) -> Vec<Val> {
    let (width, taps) = (e.config.lru_width, e.config.conv_width);
    let name = e.g.fresh("conv.bias");
    let bias = Recipe::Vectors(vec![(layer_tensor(layer, "temporal_block.conv_1d.bias"), width)]);
    let mut weights = vec![e.shards.tensor(name, &[width], bias)];
    for tap in 0..taps {
        let recipe =
            Recipe::Tap { source: layer_tensor(layer, "temporal_block.conv_1d.weight"), channels: width, taps, tap };
        let name = e.g.fresh("conv.tap");
        weights.push(e.shards.tensor(name, &[width], recipe));
    }
    weights
}

/// `y[t] = bias + Σ_j w[j] · x[t - taps + 1 + j]` for `x [rows, tokens, width]`; the state `before` holds the inputs before
/// `x`, and `after` those that the next step needs. One multiply-add a tap over the concatenation of state and input.
pub(crate) fn conv(
    g: &mut Builder,
    config: &ModelConfig,
    x: &Val,
    tokens: &Val,
    weights: &[Val],
    [before, after]: [&Val; 2],
) -> Val {
    let axis = |axis: i64| -> Vec<AttributeProto> { vec![int("axis", axis)] };
    let all = g.op("Concat", &[before, x], axis(1));
    let mut sum = weights[0].clone();
    for (tap, weight) in weights[1..].iter().enumerate() {
        let from = g.i64s(&[tap as i64]);
        let to = g.op("Add", &[tokens, &from], vec![]);
        let shifted = g.slice(&all, &from, &to, 1);
        let part = g.op("Mul", &[&shifted, weight], vec![]);
        sum = g.op("Add", &[&sum, &part], vec![]);
    }
    let kept = g.i64s(&[config.conv_width as i64 - 1]);
    let end = g.op("Add", &[tokens, &kept], vec![]);
    let axis = g.i64s(&[1]);
    g.node(ONNX, "Slice", &[&all, tokens, &end, &axis], std::slice::from_ref(after), vec![]);
    sum
}
