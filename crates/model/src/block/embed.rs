//! Token ids to the residual stream. The embedding is also the head's matrix: its bytes are stored once.

use super::Emit;
use crate::builder::{Val, int};
use crate::quantize::Blocks;
use crate::shapes::EMBEDDING;
use crate::shard::Recipe;

/// The stored embedding, as its two users need it.
pub(crate) enum Table {
    /// `[vocab, hidden]`.
    Dense(Val),
    /// Values and scales as `MatMulNBits` reads them.
    Quantized([Val; 2], Blocks),
}

/// `embedding[ids] * scale`, `[rows, tokens, hidden]`, and the table for the head.
pub(crate) fn embed(e: &mut Emit<'_>, ids: &Val) -> (Val, Table) {
    let (vocab, hidden) = (e.config.vocab_size, e.config.hidden_size);
    let sources = vec![(EMBEDDING.to_owned(), vocab)];
    let name = "embedding";
    let (x, table) = match Blocks::choose(e.options.weights, e.options.block_size, hidden) {
        Some(blocks) => {
            let [values, scales] = e.shards.quantized(name, sources, hidden, blocks);
            // The gather wants two dimensions where the product wants three.
            let dims = [vocab, blocks.bytes(hidden)];
            let flat = e.shards.alias(&values, format!("{name}.rows"), &dims);
            let attributes = vec![
                int("bits", blocks.bits.count() as i64),
                int("block_size", blocks.size as i64),
                int("gather_axis", 0),
                int("quantize_axis", 1),
            ];
            let x = e.g.contrib("GatherBlockQuantized", &[&flat, ids, &scales], attributes);
            (x, Table::Quantized([values, scales], blocks))
        }
        None => {
            let recipe = Recipe::Matrix { sources, columns: hidden, blocks: None };
            let table = e.shards.tensor(name.to_owned(), &[vocab, hidden], recipe);
            let x = e.g.op("Gather", &[&table, ids], vec![int("axis", 0)]);
            (x, Table::Dense(table))
        }
    };
    let scale = e.g.f32(e.config.embedding_scale());
    (e.g.op("Mul", &[&x, &scale], vec![]), table)
}
