//! The real-gated linear recurrent unit (De et al., "Griffin", arXiv:2402.19427, section 2.4).

use recurve_onnx::{DataType, GraphProto};

use super::{Emit, formal};
use crate::builder::{Builder, Dim, ONNX, Val, int, ints, subgraph};
use crate::config::ModelConfig;
use crate::shapes::layer_tensor;
use crate::shard::Recipe;

/// `gates [heads, gate, 2 · gate]` (a head's input gate beside its recurrent gate), `gates_bias [heads, 1, 2 · gate]`, and
/// `log_decay [width]`: the logarithm of the decay at a full gate.
pub(crate) fn weights(e: &mut Emit<'_>, layer: usize) -> [Val; 3] {
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
    let name = e.g.fresh("log_decay");
    let log_decay = e.shards.tensor(name, &[width], Recipe::Decay(part("recurrent_param"), width));
    [weight, bias, log_decay]
}

/// `h[t] = a · h[t-1] + sqrt(1 - a²) · (i · u[t])` for `u [rows, tokens, width]`, with the gates `i`, `r` of each head and
/// `log a = -8 · r · softplus(param)`. At position 0, `a` is 0 and the root is 1.
pub(crate) fn rg_lru(
    g: &mut Builder,
    config: &ModelConfig,
    u: &Val,
    [rows, tokens, continues]: [&Val; 3],
    state: [&Val; 2],
) -> Val {
    let [input_gate, recurrent_gate] = gates(g, config, u, [rows, tokens]);
    let log_a = g.op("Mul", &[&recurrent_gate, &formal("log_decay")], vec![]);
    let (one, two) = (g.f32(1.0), g.f32(2.0));
    let a = g.op("Exp", &[&log_a], vec![]);
    let log_a2 = g.op("Mul", &[&log_a, &two], vec![]);
    let a2 = g.op("Exp", &[&log_a2], vec![]);
    let rest = g.op("Sub", &[&one, &a2], vec![]);
    let root = g.op("Sqrt", &[&rest], vec![]);

    let kept_root = g.op("Mul", &[&root, continues], vec![]);
    let first = g.op("Sub", &[&one, continues], vec![]);
    let root = g.op("Add", &[&kept_root, &first], vec![]);
    let a = g.op("Mul", &[&a, continues], vec![]);

    let gated = g.op("Mul", &[u, &input_gate], vec![]);
    let v = g.op("Mul", &[&gated, &root], vec![]);
    scan(g, config, &a, &v, state)
}

/// The input gate and the recurrent gate, `[rows, tokens, width]` each: both are one batched product in f32. The heads
/// come first, so that a head's weights are read once for all rows and tokens.
fn gates(g: &mut Builder, config: &ModelConfig, u: &Val, [rows, tokens]: [&Val; 2]) -> [Val; 2] {
    let (width, heads, gate) = (config.lru_width, config.heads, config.gate_width());
    let by_head = g.reshape(u, &[-1, heads as i64, gate as i64]);
    let by_head = g.transpose(&by_head, &[1, 0, 2]);
    let product = g.op("MatMul", &[&by_head, &formal("gates")], vec![]);
    let sum = g.op("Add", &[&product, &formal("gates_bias")], vec![]);
    let both = g.op("Sigmoid", &[&sum], vec![]);
    let both = g.transpose(&both, &[1, 0, 2]);
    let width = g.i64s(&[width as i64]);
    let like_u = g.op("Concat", &[rows, tokens, &width], vec![int("axis", 0)]);
    g.split(&both, [gate, gate]).map(|side| g.op("Reshape", &[&side, &like_u], vec![]))
}

/// `h[t] = a[t] · h[t-1] + v[t]` along the tokens.
fn scan(g: &mut Builder, config: &ModelConfig, a: &Val, v: &Val, [before, after]: [&Val; 2]) -> Val {
    let h = Val(g.fresh("h"));
    let body = scan_body(config.lru_width);
    let attributes = vec![
        subgraph("body", body),
        int("num_scan_inputs", 2),
        ints("scan_input_axes", &[1, 1]),
        ints("scan_output_axes", &[1]),
    ];
    g.node(ONNX, "Scan", &[before, a, v], &[after.clone(), h.clone()], attributes);
    h
}

fn scan_body(width: usize) -> GraphProto {
    let mut body = Builder::default();
    // Shape inference of an operator's definition takes equal names inside and outside of a body for one value.
    body.enter("scan");
    let dims = [Dim::Named("rows"), Dim::Of(width)];
    let [before, a, v] = ["scan.before", "scan.a", "scan.v"].map(|name| body.input(name, DataType::Float, &dims));
    let [after, h] = ["scan.after", "scan.h"].map(|name| body.output(name, DataType::Float, &dims));
    let decayed = body.op("Mul", &[&a, &before], vec![]);
    body.node(ONNX, "Add", &[&decayed, &v], std::slice::from_ref(&after), vec![]);
    body.node(ONNX, "Identity", &[&after], &[h], vec![]);
    body.finish("rg_lru", vec![])
}
