//! The recurrent temporal block: a gated branch beside convolution and RG-LRU.

use super::position::Position;
use super::rg_lru::{self, rg_lru};
use super::{Emit, conv, formal, linear::linear};
use crate::builder::{ONNX, Val};
use crate::shapes::{StateKind, layer_tensor};

/// `out(rg_lru(conv(x_branch)) * gelu_tanh(y_branch))`; both branches are one product.
pub(crate) fn recurrent(e: &mut Emit<'_>, layer: usize, x: &Val, position: &Position) -> Val {
    let (hidden, width) = (e.config.hidden_size, e.config.lru_width);
    let part = |side: &str| layer_tensor(layer, &format!("temporal_block.{side}"));
    let both = linear(e, "y_x", x, &[(part("linear_y"), width), (part("linear_x"), width)], hidden, true);
    let mixed = mix(e, layer, &both, position);
    linear(e, "out", &mixed, &[(part("linear_out"), hidden)], width, true)
}

/// What lies between the two products: `RecurrentMix`. Takes `branches [rows, tokens, 2 · width]`, gives
/// `[rows, tokens, width]`; each head's channels depend on no other's.
fn mix(e: &mut Emit<'_>, layer: usize, branches: &Val, position: &Position) -> Val {
    let (conv_before, conv_after) = e.state(StateKind::Conv, layer);
    let (lru_before, lru_after) = e.state(StateKind::Lru, layer);
    let conv_weights = conv::weights(e, layer);
    let [gates, gates_bias, log_decay] = rg_lru::weights(e, layer);
    let taps: Vec<String> = (0..conv_weights.len() - 1).map(|tap| format!("tap_{tap}")).collect();
    let mut inputs = vec![
        ("branches", branches),
        ("conv_before", &conv_before),
        ("lru_before", &lru_before),
        ("continues", &position.continues),
        ("rows", &position.rows),
        ("tokens", &position.tokens),
        ("gates", &gates),
        ("gates_bias", &gates_bias),
        ("log_decay", &log_decay),
        ("conv_bias", &conv_weights[0]),
    ];
    inputs.extend(taps.iter().map(String::as_str).zip(&conv_weights[1..]));
    let mixed = Val(e.g.fresh("mixed"));
    let outputs = [("mixed", &mixed), ("conv_after", &conv_after), ("lru_after", &lru_after)];
    e.call("RecurrentMix", &inputs, &outputs, vec![], |g, config, _| {
        let width = config.lru_width;
        let [branches, conv_before, lru_before, continues, rows, tokens] =
            ["branches", "conv_before", "lru_before", "continues", "rows", "tokens"].map(formal);
        let [y, u] = g.split(&branches, [width, width]);
        let y = g.contrib("FastGelu", &[&y], vec![]);
        let weights: Vec<Val> =
            std::iter::once("conv_bias").chain(taps.iter().map(String::as_str)).map(formal).collect();
        let u = conv::conv(g, config, &u, &tokens, &weights, [&conv_before, &formal("conv_after")]);
        let h = rg_lru(g, config, &u, [&rows, &tokens, &continues], [&lru_before, &formal("lru_after")]);
        g.node(ONNX, "Mul", &[&h, &y], &[formal("mixed")], vec![]);
    });
    mixed
}
