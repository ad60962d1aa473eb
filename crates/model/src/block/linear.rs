//! `y = x Wᵀ + b`, several layers of the checkpoint merged into one product where they share their input.

use super::Emit;
use crate::builder::{Val, int};
use crate::quantize::Blocks;
use crate::shard::{Recipe, count_rows};

/// The product of `x [.., columns]` with the rows of all `parts` (the checkpoint's names without `.weight`, and rows).
pub(crate) fn linear(
    e: &mut Emit<'_>,
    name: &str,
    x: &Val,
    parts: &[(String, usize)],
    columns: usize,
    bias: bool,
) -> Val {
    let sources: Vec<_> = parts.iter().map(|(part, rows)| (format!("{part}.weight"), *rows)).collect();
    let rows = count_rows(parts);
    let name = e.g.fresh(name);
    let bias = bias.then(|| {
        let parts = parts.iter().map(|(part, rows)| (format!("{part}.bias"), *rows)).collect();
        e.shards.tensor(format!("{name}.bias"), &[rows], Recipe::Vectors(parts))
    });
    match Blocks::choose(e.options.weights, e.options.block_size, columns) {
        Some(blocks) => {
            let [values, scales] = e.shards.quantized(&name, sources, columns, blocks);
            quantized_product(e, x, [&values, &scales], bias.as_ref(), rows, columns, blocks)
        }
        None => {
            let recipe = Recipe::Matrix { sources, columns, blocks: None };
            let weight = e.shards.tensor(name, &[rows, columns], recipe);
            let product = dense_product(e, x, &weight);
            match bias {
                Some(bias) => e.g.op("Add", &[&product, &bias], vec![]),
                None => product,
            }
        }
    }
}

/// `x Wᵀ` with a quantized `W [rows, columns]`. Activations are rounded to 8 bits in blocks (accuracy level 4), as every
/// fast kernel does.
pub(crate) fn quantized_product(
    e: &mut Emit<'_>,
    x: &Val,
    [values, scales]: [&Val; 2],
    bias: Option<&Val>,
    rows: usize,
    columns: usize,
    blocks: Blocks,
) -> Val {
    let attributes = vec![
        int("K", columns as i64),
        int("N", rows as i64),
        int("bits", blocks.bits.count() as i64),
        int("block_size", blocks.size as i64),
        int("accuracy_level", 4),
    ];
    let none = Val(String::new());
    match bias {
        None => e.g.contrib("MatMulNBits", &[x, values, scales], attributes),
        Some(bias) => e.g.contrib("MatMulNBits", &[x, values, scales, &none, &none, bias], attributes),
    }
}

/// `x Wᵀ` with an f32 `W [rows, columns]`, read as the checkpoint lays it out.
pub(crate) fn dense_product(e: &mut Emit<'_>, x: &Val, weight: &Val) -> Val {
    e.g.contrib("FusedMatMul", &[x, weight], vec![int("transB", 1)])
}
