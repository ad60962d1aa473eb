//! The gated MLP of every layer.

use super::linear::linear;
use super::{Emit, formal};
use crate::builder::{ONNX, Val};
use crate::shapes::layer_tensor;

/// `down(gelu_tanh(gate(x)) * up(x))`; gate and up are one product, and what lies between the two is `GatedGelu`.
pub(crate) fn mlp(e: &mut Emit<'_>, layer: usize, x: &Val) -> Val {
    let (hidden, width) = (e.config.hidden_size, e.config.mlp_width);
    let part = |side: &str| layer_tensor(layer, &format!("mlp_block.{side}"));
    let both = linear(e, "gate_up", x, &[(part("gate_proj"), width), (part("up_proj"), width)], hidden, true);
    let gated = Val(e.g.fresh("gated"));
    e.call("GatedGelu", &[("branches", &both)], &[("gated", &gated)], vec![], |g, config, _| {
        let [gate, up] = g.split(&formal("branches"), [config.mlp_width; 2]);
        let gate = g.contrib("FastGelu", &[&gate], vec![]);
        g.node(ONNX, "Mul", &[&gate, &up], &[formal("gated")], vec![]);
    });
    linear(e, "down", &gated, &[(part("down_proj"), hidden)], width, true)
}
