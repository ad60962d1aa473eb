//! The gated MLP of every layer.

use super::Emit;
use super::linear::linear;
use crate::onnx::builder::Val;
use crate::shapes::layer_tensor;

/// `down(gelu_tanh(gate(x)) * up(x))`; gate and up are one product.
pub(crate) fn mlp(e: &mut Emit<'_>, layer: usize, x: &Val) -> Val {
    let (hidden, width) = (e.config.hidden_size, e.config.mlp_width);
    let part = |side: &str| layer_tensor(layer, &format!("mlp_block.{side}"));
    let both = linear(e, "gate_up", x, &[(part("gate_proj"), width), (part("up_proj"), width)], hidden, true);
    let [gate, up] = e.g.split(&both, [width, width]);
    let gate = e.g.contrib("FastGelu", &[&gate], vec![]);
    let product = e.g.op("Mul", &[&gate, &up], vec![]);
    linear(e, "down", &product, &[(part("down_proj"), hidden)], width, true)
}
