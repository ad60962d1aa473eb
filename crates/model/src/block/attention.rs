//! The attention temporal block: grouped queries over a ring of the last keys and values.

use super::Emit;
use super::linear::linear;
use super::position::Position;
use crate::onnx::builder::{ONNX, Val, int, string};
use crate::shapes::{StateKind, layer_tensor};

/// Local attention. The new keys and values are written into the rings first, then all of the ring is attended under a
/// mask: nothing is concatenated and nothing grows, and with one buffer bound as input and output the rings are updated
/// in place.
pub(crate) fn attention(e: &mut Emit<'_>, layer: usize, x: &Val, position: &Position) -> Val {
    let (hidden, heads, kv_heads, dim) = (e.config.hidden_size, e.config.heads, e.config.kv_heads, e.config.head_dim);
    let part = |side: &str| layer_tensor(layer, &format!("temporal_block.{side}"));
    let (queries, keys) = (heads * dim, kv_heads * dim);
    let parts = [(part("q_proj"), queries), (part("k_proj"), keys), (part("v_proj"), keys)];
    let qkv = linear(e, "qkv", x, &parts, hidden, e.config.attention_bias);
    let [q, k, v] = e.g.split(&qkv, [queries, keys, keys]);
    let [q, k, v] = [(q, heads), (k, kv_heads), (v, kv_heads)].map(|(side, heads)| {
        let by_head = e.g.reshape(&side, &[0, 0, heads as i64, dim as i64]);
        e.g.transpose(&by_head, &[0, 2, 1, 3])
    });
    let (q, k) = (rotate(e, q, position), rotate(e, k, position));
    let keys = write_ring(e, StateKind::Keys, layer, &k, position);
    let values = write_ring(e, StateKind::Values, layer, &v, position);

    // Queries of the heads that share a key head come one below the other: [rows, kv_heads, group * tokens, dim].
    let group = (heads / kv_heads) as i64;
    let (kv, dim_i, ring) = (kv_heads as i64, dim as i64, e.options.ring(e.config) as i64);
    let q = grouped(e, &q, position, &[kv, group], dim_i);
    let q = stacked(e, &q, position, kv, dim_i);
    let scale = e.g.f32(1.0 / (dim as f32).sqrt());
    let q = e.g.op("Mul", &[&q, &scale], vec![]);
    let turned = e.g.transpose(&keys, &[0, 1, 3, 2]);
    let scores = e.g.op("MatMul", &[&q, &turned], vec![]);
    let scores = grouped(e, &scores, position, &[kv, group], ring);
    let scores = e.g.op("Add", &[&scores, &position.mask], vec![]);
    let shares = e.g.op("Softmax", &[&scores], vec![int("axis", -1)]);
    let shares = stacked(e, &shares, position, kv, ring);
    let mixed = e.g.op("MatMul", &[&shares, &values], vec![]);
    let mixed = grouped(e, &mixed, position, &[heads as i64], dim_i);
    let mixed = e.g.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = e.g.reshape(&mixed, &[0, 0, queries as i64]);
    linear(e, "o", &mixed, &[(part("o_proj"), hidden)], queries, true)
}

/// Rotates the first dimensions of each head `[rows, heads, tokens, dim]`, the first half against the second.
fn rotate(e: &mut Emit<'_>, x: Val, position: &Position) -> Val {
    let Some([cos, sin]) = &position.rotary else { return x };
    let half = e.config.rotary_dim / 2;
    let rest = e.config.head_dim - e.config.rotary_dim;
    let (low, high, rest) = match rest {
        0 => {
            let [low, high] = e.g.split(&x, [half, half]);
            (low, high, None)
        }
        rest => {
            let [low, high, rest] = e.g.split(&x, [half, half, rest]);
            (low, high, Some(rest))
        }
    };
    let [low_cos, high_sin] = [(&low, cos), (&high, sin)].map(|(a, b)| e.g.op("Mul", &[a, b], vec![]));
    let [high_cos, low_sin] = [(&high, cos), (&low, sin)].map(|(a, b)| e.g.op("Mul", &[a, b], vec![]));
    let low = e.g.op("Sub", &[&low_cos, &high_sin], vec![]);
    let high = e.g.op("Add", &[&high_cos, &low_sin], vec![]);
    let mut parts = vec![&low, &high];
    parts.extend(&rest);
    e.g.op("Concat", &parts, vec![int("axis", -1)])
}

/// Writes `[rows, kv_heads, tokens, dim]` into the ring from the first token's slot on, around its end.
fn write_ring(e: &mut Emit<'_>, kind: StateKind, layer: usize, x: &Val, position: &Position) -> Val {
    let (before, after) = e.state(kind, layer);
    let attributes = vec![int("axis", 2), string("mode", "circular")];
    e.g.node(ONNX, "TensorScatter", &[&before, x, &position.slot], std::slice::from_ref(&after), attributes);
    after
}

/// Reshapes to `[rows, heads.., tokens, width]`.
fn grouped(e: &mut Emit<'_>, x: &Val, position: &Position, heads: &[i64], width: i64) -> Val {
    let (heads, width) = (e.g.i64s(heads), e.g.i64s(&[width]));
    let dims = e.g.op("Concat", &[&position.rows, &heads, &position.tokens, &width], vec![int("axis", 0)]);
    e.g.op("Reshape", &[x, &dims], vec![])
}

/// Reshapes to `[rows, kv_heads, group * tokens, width]`.
fn stacked(e: &mut Emit<'_>, x: &Val, position: &Position, kv_heads: i64, width: i64) -> Val {
    let rest = e.g.i64s(&[kv_heads, -1, width]);
    let dims = e.g.op("Concat", &[&position.rows, &rest], vec![int("axis", 0)]);
    e.g.op("Reshape", &[x, &dims], vec![])
}
