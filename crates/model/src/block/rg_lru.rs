//! The real-gated linear recurrent unit (De et al., "Griffin", arXiv:2402.19427, section 2.4).

use super::Emit;
use super::position::Position;
use crate::onnx::builder::{Builder, Dim};
use crate::onnx::builder::{ONNX, Val, int, ints, subgraph};
use crate::onnx::proto::{DataType, GraphProto};
use crate::shapes::{StateKind, layer_tensor};
use crate::shard::Recipe;

/// `h[t] = a · h[t-1] + sqrt(1 - a²) · (i · u[t])` for `u [rows, tokens, width]`, with the gates `i`, `r` of each head and
/// `log a = -8 · r · softplus(param)`. At position 0, `a` is 0 and the root is 1.
pub(crate) fn rg_lru(e: &mut Emit<'_>, layer: usize, u: &Val, position: &Position) -> Val {
    let width = e.config.lru_width;
    let [input_gate, recurrent_gate] = gates(e, layer, u, position);

    let name = e.g.fresh("log_decay");
    let param = layer_tensor(layer, "temporal_block.rg_lru.recurrent_param");
    let log_decay = e.shards.tensor(name, &[width], Recipe::Decay(param, width));
    let log_a = e.g.op("Mul", &[&recurrent_gate, &log_decay], vec![]);
    let (one, two) = (e.g.f32(1.0), e.g.f32(2.0));
    let a = e.g.op("Exp", &[&log_a], vec![]);
    let log_a2 = e.g.op("Mul", &[&log_a, &two], vec![]);
    let a2 = e.g.op("Exp", &[&log_a2], vec![]);
    let rest = e.g.op("Sub", &[&one, &a2], vec![]);
    let root = e.g.op("Sqrt", &[&rest], vec![]);

    let kept_root = e.g.op("Mul", &[&root, &position.continues], vec![]);
    let first = e.g.op("Sub", &[&one, &position.continues], vec![]);
    let root = e.g.op("Add", &[&kept_root, &first], vec![]);
    let a = e.g.op("Mul", &[&a, &position.continues], vec![]);

    let gated = e.g.op("Mul", &[u, &input_gate], vec![]);
    let v = e.g.op("Mul", &[&gated, &root], vec![]);
    scan(e, layer, &a, &v)
}

/// The input gate and the recurrent gate, `[rows, tokens, width]` each: both are one batched product in f32. The heads
/// come first, so that a head's weights are read once for all rows and tokens.
fn gates(e: &mut Emit<'_>, layer: usize, u: &Val, position: &Position) -> [Val; 2] {
    let (width, heads, gate) = (e.config.lru_width, e.config.heads, e.config.gate_width());
    let part = |side: &str| layer_tensor(layer, &format!("temporal_block.rg_lru.{side}"));
    let name = e.g.fresh("gates");
    let weight = Recipe::Beside {
        left: part("input_gate_weight"),
        right: part("recurrent_gate_weight"),
        rows: heads * gate,
        width: gate,
    };
    let weight = e.shards.tensor(name.clone(), &[heads, gate, 2 * gate], weight);
    let bias =
        Recipe::Beside { left: part("input_gate_bias"), right: part("recurrent_gate_bias"), rows: heads, width: gate };
    let bias = e.shards.tensor(format!("{name}.bias"), &[heads, 1, 2 * gate], bias);

    let by_head = e.g.reshape(u, &[-1, heads as i64, gate as i64]);
    let by_head = e.g.transpose(&by_head, &[1, 0, 2]);
    let product = e.g.op("MatMul", &[&by_head, &weight], vec![]);
    let sum = e.g.op("Add", &[&product, &bias], vec![]);
    let both = e.g.op("Sigmoid", &[&sum], vec![]);
    let both = e.g.transpose(&both, &[1, 0, 2]);
    let width = e.g.i64s(&[width as i64]);
    let like_u = e.g.op("Concat", &[&position.rows, &position.tokens, &width], vec![int("axis", 0)]);
    e.g.split(&both, [gate, gate]).map(|side| e.g.op("Reshape", &[&side, &like_u], vec![]))
}

/// `h[t] = a[t] · h[t-1] + v[t]` along the tokens.
fn scan(e: &mut Emit<'_>, layer: usize, a: &Val, v: &Val) -> Val {
    let (before, after) = e.state(StateKind::Lru, layer);
    let h = Val(e.g.fresh("h"));
    let body = scan_body(e.config.lru_width);
    let attributes = vec![
        subgraph("body", body),
        int("num_scan_inputs", 2),
        ints("scan_input_axes", &[1, 1]),
        ints("scan_output_axes", &[1]),
    ];
    e.g.node(ONNX, "Scan", &[&before, a, v], &[after, h.clone()], attributes);
    h
}

fn scan_body(width: usize) -> GraphProto {
    let mut body = Builder::default();
    let dims = [Dim::Named("rows"), Dim::Of(width)];
    let [before, a, v] = ["before", "a", "v"].map(|name| body.input(name, DataType::Float, &dims));
    let [after, h] = ["after", "h"].map(|name| body.output(name, DataType::Float, &dims));
    let decayed = body.op("Mul", &[&a, &before], vec![]);
    body.node(ONNX, "Add", &[&decayed, &v], std::slice::from_ref(&after), vec![]);
    body.node(ONNX, "Identity", &[&after], &[h], vec![]);
    body.finish("rg_lru", vec![])
}
