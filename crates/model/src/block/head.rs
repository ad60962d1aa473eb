//! The residual stream to logits, for the last `num_logits` positions only.

use super::embed::Table;
use super::linear::{dense_product, quantized_product};
use super::norm::rms;
use super::position::Position;
use super::{Emit, formal};
use crate::builder::{ONNX, Val, float};
use crate::shapes::FINAL_NORM;

/// `cap * tanh(final_norm(x) embeddingᵀ / cap)`, written to `logits [rows, num_logits, vocab]`.
pub(crate) fn head(e: &mut Emit<'_>, x: &Val, table: &Table, position: &Position, num_logits: &Val, logits: Val) {
    let first = e.g.op("Sub", &[&position.tokens, num_logits], vec![]);
    let x = e.g.slice(x, &first, &position.tokens, 1);
    let x = rms(e, &x, FINAL_NORM);
    let (vocab, hidden) = (e.config.vocab_size, e.config.hidden_size);
    let product = match table {
        Table::Dense(weight) => dense_product(e, &x, weight),
        Table::Quantized([values, scales], blocks) => {
            quantized_product(e, &x, [values, scales], None, vocab, hidden, *blocks)
        }
    };
    let attributes = vec![float("cap", e.config.logits_soft_cap)];
    e.call("SoftCap", &[("x", &product)], &[("y", &logits)], attributes, |g, config, _| {
        let cap = g.f32(config.logits_soft_cap);
        let inner = g.op("Div", &[&formal("x"), &cap], vec![]);
        let bounded = g.op("Tanh", &[&inner], vec![]);
        g.node(ONNX, "Mul", &[&bounded, &cap], &[formal("y")], vec![]);
    });
}
