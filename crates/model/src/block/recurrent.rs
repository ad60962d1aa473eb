//! The recurrent temporal block: a gated branch beside convolution and RG-LRU.

use super::Emit;
use super::conv::conv;
use super::linear::linear;
use super::position::Position;
use super::rg_lru::rg_lru;
use crate::onnx::builder::Val;
use crate::shapes::layer_tensor;

/// `out(rg_lru(conv(x_branch)) * gelu_tanh(y_branch))`; both branches are one product.
pub(crate) fn recurrent(e: &mut Emit<'_>, layer: usize, x: &Val, position: &Position) -> Val {
    let (hidden, width) = (e.config.hidden_size, e.config.lru_width);
    let part = |side: &str| layer_tensor(layer, &format!("temporal_block.{side}"));
    let both = linear(e, "y_x", x, &[(part("linear_y"), width), (part("linear_x"), width)], hidden, true);
    let [y, u] = e.g.split(&both, [width, width]);
    let y = e.g.contrib("FastGelu", &[&y], vec![]);
    let u = conv(e, layer, &u, position);
    let h = rg_lru(e, layer, &u, position);
    let gated = e.g.op("Mul", &[&h, &y], vec![]);
    linear(e, "out", &gated, &[(part("linear_out"), hidden)], width, true)
}
