//! The attention temporal block: grouped queries over a ring of the last keys and values.

use super::linear::linear;
use super::position::Position;
use super::{Emit, formal};
use crate::builder::{Builder, ONNX, Val, int, string};
use crate::config::ModelConfig;
use crate::shapes::{StateKind, layer_tensor};

/// `o(local_attention(q, k, v))`; the three are one product.
pub(crate) fn attention(e: &mut Emit<'_>, layer: usize, x: &Val, position: &Position) -> Val {
    let (hidden, heads, kv_heads, dim) = (e.config.hidden_size, e.config.heads, e.config.kv_heads, e.config.head_dim);
    let part = |side: &str| layer_tensor(layer, &format!("temporal_block.{side}"));
    let (queries, keys) = (heads * dim, kv_heads * dim);
    let parts = [(part("q_proj"), queries), (part("k_proj"), keys), (part("v_proj"), keys)];
    let qkv = linear(e, "qkv", x, &parts, hidden, e.config.attention_bias);
    let mixed = local(e, layer, &qkv, position);
    linear(e, "o", &mixed, &[(part("o_proj"), hidden)], queries, true)
}

/// What lies between the two products: `LocalAttention`. Takes `qkv [rows, tokens, (heads + 2 · kv_heads) · dim]`, gives
/// `[rows, tokens, heads · dim]`. The new keys and values are written into the rings first, then all of the ring is
/// attended under a mask: nothing is concatenated and nothing grows, and with one buffer bound as input and output the
/// rings are updated in place.
fn local(e: &mut Emit<'_>, layer: usize, qkv: &Val, position: &Position) -> Val {
    let (keys_before, keys_after) = e.state(StateKind::Keys, layer);
    let (values_before, values_after) = e.state(StateKind::Values, layer);
    let mut inputs = vec![
        ("qkv", qkv),
        ("keys_before", &keys_before),
        ("values_before", &values_before),
        ("start", &position.start),
        ("slot", &position.slot),
        ("mask", &position.mask),
        ("rows", &position.rows),
        ("tokens", &position.tokens),
    ];
    if let Some([cos, sin]) = &position.rotary {
        inputs.extend([("cos", cos), ("sin", sin)]);
    }
    let mixed = Val(e.g.fresh("mixed"));
    let outputs = [("mixed", &mixed), ("keys_after", &keys_after), ("values_after", &values_after)];
    let attributes = vec![int("heads", e.config.heads as i64), int("window", e.config.window as i64)];
    e.call("LocalAttention", &inputs, &outputs, attributes, |g, config, options| {
        let [q, k, v] = by_head(g, config);
        let keys = write_ring(g, "keys", &k);
        let values = write_ring(g, "values", &v);
        attend(g, config, options.ring(config) as i64, &q, [&keys, &values]);
    });
    mixed
}

/// Queries, keys and values `[rows, heads, tokens, dim]`, the first two rotated.
fn by_head(g: &mut Builder, config: &ModelConfig) -> [Val; 3] {
    let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
    let sides = g.split(&formal("qkv"), [heads * dim, kv_heads * dim, kv_heads * dim]);
    let [q, k, v] = [(&sides[0], heads), (&sides[1], kv_heads), (&sides[2], kv_heads)].map(|(side, heads)| {
        let by_head = g.reshape(side, &[0, 0, heads as i64, dim as i64]);
        g.transpose(&by_head, &[0, 2, 1, 3])
    });
    [rotate(g, config, q), rotate(g, config, k), v]
}

/// Softmax over the slots that a token sees. Queries of the heads that share a key head come one below the other:
/// `[rows, kv_heads, group · tokens, dim]`.
fn attend(g: &mut Builder, config: &ModelConfig, ring: i64, q: &Val, [keys, values]: [&Val; 2]) {
    let (heads, kv, dim) = (config.heads as i64, config.kv_heads as i64, config.head_dim as i64);
    let group = heads / kv;
    let q = grouped(g, q, &[kv, group], dim);
    let q = stacked(g, &q, kv, dim);
    let scale = g.f32(1.0 / (config.head_dim as f32).sqrt());
    let q = g.op("Mul", &[&q, &scale], vec![]);
    let turned = g.transpose(keys, &[0, 1, 3, 2]);
    let scores = g.op("MatMul", &[&q, &turned], vec![]);
    let scores = grouped(g, &scores, &[kv, group], ring);
    let scores = g.op("Add", &[&scores, &formal("mask")], vec![]);
    let shares = g.op("Softmax", &[&scores], vec![int("axis", -1)]);
    let shares = stacked(g, &shares, kv, ring);
    let mixed = g.op("MatMul", &[&shares, values], vec![]);
    let mixed = grouped(g, &mixed, &[heads], dim);
    let mixed = g.transpose(&mixed, &[0, 2, 1, 3]);
    let dims = g.i64s(&[0, 0, heads * dim]);
    g.node(ONNX, "Reshape", &[&mixed, &dims], &[formal("mixed")], vec![]);
}

/// Rotates the first dimensions of each head `[rows, heads, tokens, dim]`, the first half against the second.
fn rotate(g: &mut Builder, config: &ModelConfig, x: Val) -> Val {
    if config.rotary_dim == 0 {
        return x;
    }
    let [cos, sin] = [&formal("cos"), &formal("sin")];
    let half = config.rotary_dim / 2;
    let rest = config.head_dim - config.rotary_dim;
    let (low, high, rest) = match rest {
        0 => {
            let [low, high] = g.split(&x, [half, half]);
            (low, high, None)
        }
        rest => {
            let [low, high, rest] = g.split(&x, [half, half, rest]);
            (low, high, Some(rest))
        }
    };
    let [low_cos, high_sin] = [(&low, cos), (&high, sin)].map(|(a, b)| g.op("Mul", &[a, b], vec![]));
    let [high_cos, low_sin] = [(&high, cos), (&low, sin)].map(|(a, b)| g.op("Mul", &[a, b], vec![]));
    let low = g.op("Sub", &[&low_cos, &high_sin], vec![]);
    let high = g.op("Add", &[&high_cos, &low_sin], vec![]);
    let mut parts = vec![&low, &high];
    parts.extend(&rest);
    g.op("Concat", &parts, vec![int("axis", -1)])
}

/// Writes `[rows, kv_heads, tokens, dim]` into the ring from the first token's slot on, around its end.
fn write_ring(g: &mut Builder, side: &str, x: &Val) -> Val {
    let [before, after] = ["before", "after"].map(|when| formal(&format!("{side}_{when}")));
    let attributes = vec![int("axis", 2), string("mode", "circular")];
    g.node(ONNX, "TensorScatter", &[&before, x, &formal("slot")], std::slice::from_ref(&after), attributes);
    after
}

/// Reshapes to `[rows, heads.., tokens, width]`.
fn grouped(g: &mut Builder, x: &Val, heads: &[i64], width: i64) -> Val {
    let (heads, width) = (g.i64s(heads), g.i64s(&[width]));
    let dims = g.op("Concat", &[&formal("rows"), &heads, &formal("tokens"), &width], vec![int("axis", 0)]);
    g.op("Reshape", &[x, &dims], vec![])
}

/// Reshapes to `[rows, kv_heads, group * tokens, width]`.
fn stacked(g: &mut Builder, x: &Val, kv_heads: i64, width: i64) -> Val {
    let rest = g.i64s(&[kv_heads, -1, width]);
    let dims = g.op("Concat", &[&formal("rows"), &rest], vec![int("axis", 0)]);
    g.op("Reshape", &[x, &dims], vec![])
}
