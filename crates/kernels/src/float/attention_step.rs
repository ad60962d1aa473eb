//! One step of an attention block's rows, on all threads.

#![allow(unsafe_code)]

use std::cell::RefCell;

use super::Floats;
use super::attention::{AttentionShape, BLOCK, Partial, Seen, finish};
use super::attention_block::Queries;
use crate::pool::Pool;
use crate::shared::SharedSlice;

/// Queries of one key head from which on they are shared out in tiles; below, the ring's blocks are.
const MANY: usize = 64;

/// What a step reads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionStep<'a> {
    /// Sizes.
    pub shape: AttentionShape,
    /// `[rows, tokens, (heads + 2 · kv_heads) · dim]`: queries, keys, values.
    pub qkv: &'a [f32],
    /// `[rows]`: tokens that each row has consumed.
    pub starts: &'a [i64],
    /// Cosines `[rows, tokens, rotary / 2]` of the rotary angles.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

/// The rings `[rows, kv_heads, ring, dim]`, in place: the step's tokens are written, then all are read.
#[derive(Debug)]
pub struct Rings<'a> {
    /// Keys, rotated.
    pub keys: &'a mut [f32],
    /// Values.
    pub values: &'a mut [f32],
}

/// Memory that steps use again and again.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    /// `[rows, kv_heads, tokens, group, dim]`.
    queries: Vec<f32>,
    /// `[rows, tokens, group]`.
    seen: Vec<Seen>,
    /// `[rows, kv_heads, blocks, queries]`.
    partials: Vec<Partial>,
    /// The same, with `dim` values each.
    mixes: Vec<f32>,
}

thread_local! {
    static SCORES: RefCell<Tile> = RefCell::default();
}

/// A thread's memory for some queries.
#[derive(Default)]
struct Tile {
    scores: Vec<f32>,
    partials: Vec<Partial>,
    mixes: Vec<f32>,
    all: Vec<f32>,
}

impl AttentionStep<'_> {
    fn check(&self, rings: &Rings<'_>, out: &[f32]) {
        let shape = self.shape;
        assert!(shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads), "heads in equal groups: {shape:?}");
        assert!(shape.rotary.is_multiple_of(2) && shape.rotary <= shape.dim, "a part of the head turns: {shape:?}");
        assert!(shape.window > 0 && shape.window + shape.tokens <= shape.ring + 1, "the ring holds a step: {shape:?}");
        let count = shape.rows * shape.tokens;
        let ring = shape.rows * shape.kv_heads * shape.ring * shape.dim;
        assert_eq!(self.qkv.len(), count * shape.token(), "queries, keys and values of {shape:?}");
        assert_eq!(self.starts.len(), shape.rows, "a position for each row");
        assert_eq!([self.cos.len(), self.sin.len()], [count * shape.rotary / 2; 2], "angles of {shape:?}");
        assert_eq!([rings.keys.len(), rings.values.len()], [ring; 2], "rings of {shape:?}");
        assert_eq!(out.len(), count * shape.heads * shape.dim, "outputs of {shape:?}");
    }

    fn position(&self, row: usize, token: usize) -> u64 {
        // Positions are never negative.
        self.starts[row].max(0) as u64 + token as u64
    }
}

/// Rotates, writes the rings, attends. `out [rows, tokens, heads · dim]`.
///
/// # Panics
/// If a slice has not the size that the shape needs.
pub fn attention(
    pool: &mut Pool,
    scratch: &mut AttentionScratch,
    step: &AttentionStep<'_>,
    rings: &mut Rings<'_>,
    out: &mut [f32],
) {
    attention_with(&Floats::best(), pool, scratch, step, rings, out);
}

/// The same with these functions.
pub(crate) fn attention_with(
    floats: &Floats,
    pool: &mut Pool,
    scratch: &mut AttentionScratch,
    step: &AttentionStep<'_>,
    rings: &mut Rings<'_>,
    out: &mut [f32],
) {
    step.check(rings, out);
    take_in(floats, step, rings, scratch);
    let (keys, values) = (&*rings.keys, &*rings.values);
    match step.shape.tokens * step.shape.group() < MANY {
        true => by_block(pool, floats, step, [keys, values], scratch, out),
        false => by_tile(pool, floats, step, [keys, values], scratch, out),
    }
}

/// Rotated queries into the scratch, rotated keys and values into the rings.
fn take_in(floats: &Floats, step: &AttentionStep<'_>, rings: &mut Rings<'_>, scratch: &mut AttentionScratch) {
    let shape = step.shape;
    let (dim, half, group) = (shape.dim, shape.rotary / 2, shape.group());
    scratch.queries.resize(shape.rows * shape.tokens * shape.heads * dim, 0.0);
    scratch.seen.clear();
    let scale = 1.0 / (dim as f32).sqrt();
    for row in 0..shape.rows {
        for token in 0..shape.tokens {
            let at = row * shape.tokens + token;
            let x = &step.qkv[at * shape.token()..][..shape.token()];
            let (cos, sin) = (&step.cos[at * half..][..half], &step.sin[at * half..][..half]);
            let position = step.position(row, token);
            let slot = (position % shape.ring as u64) as usize;
            scratch.seen.extend(std::iter::repeat_n(Seen::at(position, &shape), group));
            for head in 0..shape.heads {
                let (kv, member) = (head / group, head % group);
                let to = ((row * shape.kv_heads + kv) * shape.tokens + token) * group + member;
                floats.rotate(&x[head * dim..][..dim], cos, sin, scale, &mut scratch.queries[to * dim..][..dim]);
            }
            for kv in 0..shape.kv_heads {
                let to = ((row * shape.kv_heads + kv) * shape.ring + slot) * dim;
                let key = &x[(shape.heads + kv) * dim..][..dim];
                floats.rotate(key, cos, sin, 1.0, &mut rings.keys[to..][..dim]);
                let value = &x[(shape.heads + shape.kv_heads + kv) * dim..][..dim];
                rings.values[to..][..dim].copy_from_slice(value);
            }
        }
    }
}

/// One key head of one row: its part of the rings and its queries.
struct Side<'a> {
    row: usize,
    kv: usize,
    ring: [&'a [f32]; 2],
    queries: Queries<'a>,
}

impl<'a> Side<'a> {
    fn new(shape: &AttentionShape, rings: [&'a [f32]; 2], queries: &'a [f32], seen: &'a [Seen], at: usize) -> Self {
        let (count, size) = (shape.tokens * shape.group(), shape.ring * shape.dim);
        let (row, kv) = (at / shape.kv_heads, at % shape.kv_heads);
        Self {
            row,
            kv,
            ring: rings.map(|ring| &ring[at * size..][..size]),
            queries: Queries {
                values: &queries[at * count * shape.dim..][..count * shape.dim],
                seen: &seen[row * count..][..count],
                dim: shape.dim,
            },
        }
    }

    /// Where a query's result begins in `[rows, tokens, heads · dim]`.
    fn place(&self, shape: &AttentionShape, query: usize) -> usize {
        let (token, member) = (query / shape.group(), query % shape.group());
        ((self.row * shape.tokens + token) * shape.heads + self.kv * shape.group() + member) * shape.dim
    }
}

fn slots(shape: &AttentionShape, block: usize) -> [usize; 2] {
    [block * BLOCK, ((block + 1) * BLOCK).min(shape.ring)]
}

/// Few queries: threads take blocks of the rings, and their results are joined afterwards.
fn by_block(
    pool: &mut Pool,
    floats: &Floats,
    step: &AttentionStep<'_>,
    rings: [&[f32]; 2],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let shape = step.shape;
    let (sides, blocks, count) = (shape.rows * shape.kv_heads, shape.blocks(), shape.tokens * shape.group());
    let AttentionScratch { queries, seen, partials, mixes } = scratch;
    partials.clear();
    partials.resize(sides * blocks * count, Partial::NONE);
    mixes.resize(sides * blocks * count * shape.dim, 0.0);
    let (all_partials, all_mixes) = (SharedSlice::new(partials), SharedSlice::new(mixes));
    pool.run(sides * blocks, &|part| {
        let side = Side::new(&shape, rings, queries, seen, part / blocks);
        let [from, to] = slots(&shape, part % blocks);
        if side.queries.seen.iter().any(|seen| seen.touches(from, to)) {
            // SAFETY: each part has its own block of both.
            let (partials, mix) = unsafe {
                (all_partials.part(part * count, count), all_mixes.part(part * count * shape.dim, count * shape.dim))
            };
            SCORES.with_borrow_mut(|tile| {
                tile.scores.resize(count * BLOCK, 0.0);
                floats.block(side.queries, side.ring, [from, to], &mut tile.scores, partials, mix);
            });
        }
    });
    let out = SharedSlice::new(out);
    pool.run(sides, &|at| {
        let side = Side::new(&shape, rings, queries, seen, at);
        for query in 0..count {
            // SAFETY: each side has its own blocks and its own results, and the blocks are done.
            unsafe {
                let result = out.part(side.place(&shape, query), shape.dim);
                result.fill(0.0);
                let mut all = Partial::NONE;
                for block in at * blocks..(at + 1) * blocks {
                    let partial = all_partials.part(block * count + query, 1)[0];
                    let mix = all_mixes.part((block * count + query) * shape.dim, shape.dim);
                    floats.join(&mut all, result, partial, mix);
                }
                finish(all, result);
            }
        }
    });
}

/// Many queries: threads take tiles of them, each block after block.
fn by_tile(
    pool: &mut Pool,
    floats: &Floats,
    step: &AttentionStep<'_>,
    rings: [&[f32]; 2],
    scratch: &AttentionScratch,
    out: &mut [f32],
) {
    let shape = step.shape;
    let (sides, count, dim) = (shape.rows * shape.kv_heads, shape.tokens * shape.group(), shape.dim);
    let tiles = count.div_ceil(MANY);
    let out = SharedSlice::new(out);
    pool.run(sides * tiles, &|part| {
        let side = Side::new(&shape, rings, &scratch.queries, &scratch.seen, part / tiles);
        let first = part % tiles * MANY;
        let own = MANY.min(count - first);
        let queries = Queries {
            values: &side.queries.values[first * dim..][..own * dim],
            seen: &side.queries.seen[first..][..own],
            dim,
        };
        SCORES.with_borrow_mut(|tile| {
            tile.scores.resize(own * BLOCK, 0.0);
            tile.mixes.resize(own * dim, 0.0);
            tile.all.clear();
            tile.all.resize(own * dim, 0.0);
            tile.partials.clear();
            tile.partials.resize(2 * own, Partial::NONE);
            let (all, partials) = tile.partials.split_at_mut(own);
            for block in 0..shape.blocks() {
                let [from, to] = slots(&shape, block);
                if !queries.seen.iter().any(|seen| seen.touches(from, to)) {
                    continue;
                }
                floats.block(queries, side.ring, [from, to], &mut tile.scores, partials, &mut tile.mixes);
                for query in 0..own {
                    let place = query * dim..(query + 1) * dim;
                    let mix = &tile.mixes[place.clone()];
                    floats.join(&mut all[query], &mut tile.all[place], partials[query], mix);
                }
            }
            for (query, (all, mix)) in all.iter().zip(tile.all.chunks_exact(dim)).enumerate() {
                // SAFETY: a query's result is one part's.
                let result = unsafe { out.part(side.place(&shape, first + query), dim) };
                result.copy_from_slice(mix);
                finish(*all, result);
            }
        });
    });
}
