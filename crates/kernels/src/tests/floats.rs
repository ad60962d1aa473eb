//! What lies between products: every instruction set gives the same bits, and a token's bits do not depend on the chunk
//! that it came in.

use proptest::prelude::*;

use super::Random;
use crate::Pool;
use crate::float::{AttentionScratch, AttentionShape, AttentionStep, Floats, RecurrentShape, RecurrentWeights, Rings};
use crate::float::{RecurrentOutput, RecurrentStep, attention_with, recurrent_with};

/// Everything of an attention block but the rings. Some tokens of some rows, at their positions.
#[derive(Debug, Clone)]
struct Attention {
    shape: AttentionShape,
    starts: Vec<i64>,
    qkv: Vec<f32>,
    angles: [Vec<f32>; 2],
}

fn attention_case() -> impl Strategy<Value = Attention> {
    let sizes = (1usize..=3, 1usize..=12, 1usize..=3, 1usize..=2, 1usize..=40, 0usize..=3);
    (sizes, 1usize..=300, 0usize..=9, 0i64..2000, any::<u64>()).prop_map(
        |((rows, tokens, group, kv_heads, half, rotary), window, more, start, seed)| {
            let shape = AttentionShape {
                rows,
                tokens,
                heads: group * kv_heads,
                kv_heads,
                dim: 2 * half,
                rotary: 2 * (half * rotary / 3),
                ring: window + tokens + more,
                window,
            };
            let mut random = Random(seed);
            let mut numbers = |count: usize| (0..count).map(|_| random.plain() * 3.0).collect::<Vec<_>>();
            let count = rows * tokens;
            Attention {
                shape,
                starts: (0..rows as i64).map(|row| start + row * 7).collect(),
                qkv: numbers(count * shape.token()),
                angles: [numbers(count * shape.rotary / 2), numbers(count * shape.rotary / 2)],
            }
        },
    )
}

impl Attention {
    /// Rings as steps before this one have left them; what no token wrote is not finite.
    fn rings(&self, seed: u64) -> [Vec<f32>; 2] {
        let AttentionShape { rows, kv_heads, ring, dim, window, .. } = self.shape;
        let mut random = Random(seed);
        [0, 1].map(|_| {
            let mut values = vec![f32::NAN; rows * kv_heads * ring * dim];
            for (side, values) in values.chunks_exact_mut(ring * dim).enumerate() {
                let start = self.starts[side / kv_heads];
                for position in (start - window as i64).max(0)..start {
                    let slot = position as usize % ring;
                    values[slot * dim..][..dim].iter_mut().for_each(|value| *value = random.plain() * 3.0);
                }
            }
            values
        })
    }

    /// Tokens `[from, to)` of each row.
    fn part(&self, from: usize, to: usize) -> Self {
        let shape = AttentionShape { tokens: to - from, ..self.shape };
        let cut = |values: &[f32], each: usize| -> Vec<f32> {
            let rows = values.chunks(self.shape.tokens * each.max(1));
            rows.flat_map(|row| row[from * each..to * each].to_vec()).collect()
        };
        Self {
            shape,
            starts: self.starts.iter().map(|start| start + from as i64).collect(),
            qkv: cut(&self.qkv, shape.token()),
            angles: self.angles.each_ref().map(|angles| cut(angles, shape.rotary / 2)),
        }
    }

    fn run(&self, floats: &Floats, threads: usize, rings: &mut [Vec<f32>; 2]) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.shape.rows * self.shape.tokens * self.shape.heads * self.shape.dim];
        let [keys, values] = rings;
        let step = AttentionStep {
            shape: self.shape,
            qkv: &self.qkv,
            starts: &self.starts,
            cos: &self.angles[0],
            sin: &self.angles[1],
        };
        let mut pool = Pool::new(threads, std::time::Duration::ZERO).unwrap();
        let mut scratch = AttentionScratch::default();
        attention_with(floats, &mut pool, &mut scratch, &step, &mut Rings { keys, values }, &mut out);
        out
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Softmax attention of one head in double precision, over rings that hold the step.
fn exact(case: &Attention, rings: &[Vec<f32>; 2], row: usize, token: usize, head: usize) -> Vec<f64> {
    let AttentionShape { tokens, kv_heads, dim, ring, window, rotary, .. } = case.shape;
    let (at, kv, half) = (row * tokens + token, head / case.shape.group(), rotary / 2);
    let position = case.starts[row] + token as i64;
    let query = &case.qkv[at * case.shape.token() + head * dim..][..dim];
    let angle = |i: usize, which: usize| f64::from(case.angles[which][at * half + i]);
    let rotated: Vec<f64> = (0..dim)
        .map(|i| match i {
            i if i < half => f64::from(query[i]) * angle(i, 0) - f64::from(query[half + i]) * angle(i, 1),
            i if i < rotary => {
                f64::from(query[i]) * angle(i - half, 0) + f64::from(query[i - half]) * angle(i - half, 1)
            }
            i => f64::from(query[i]),
        })
        .collect();
    let seen: Vec<usize> = ((position + 1 - window as i64).max(0)..=position).map(|p| p as usize % ring).collect();
    let of = |which: usize, slot: usize| &rings[which][((row * kv_heads + kv) * ring + slot) * dim..][..dim];
    let scores: Vec<f64> = seen
        .iter()
        .map(|&slot| rotated.iter().zip(of(0, slot)).map(|(q, k)| q * f64::from(*k)).sum::<f64>() / (dim as f64).sqrt())
        .collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
    let mut mix = vec![0.0; dim];
    for (score, &slot) in scores.iter().zip(&seen) {
        for (mix, value) in mix.iter_mut().zip(of(1, slot)) {
            *mix += (score - most).exp() / total * f64::from(*value);
        }
    }
    mix
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Slots that no token wrote hold NaN in these rings: what is not seen is no matter.
    #[test]
    fn attention_is_the_mix_that_its_scores_give(case in attention_case(), seed in any::<u64>()) {
        let AttentionShape { rows, tokens, heads, dim, .. } = case.shape;
        let mut rings = case.rings(seed);
        let out = case.run(&Floats::best(), 2, &mut rings);
        for (place, got) in out.chunks_exact(dim).enumerate() {
            let (at, head) = (place / heads, place % heads);
            let wanted = exact(&case, &rings, at / tokens, at % tokens, head);
            for (got, wanted) in got.iter().zip(wanted) {
                prop_assert!((f64::from(*got) - wanted).abs() < 2e-4, "{got} for {wanted}, {at} of {rows} x {tokens}");
            }
        }
    }

    #[test]
    fn attention_has_the_same_bits_with_every_instruction_set_and_chunk(case in attention_case(), seed in any::<u64>(), cut in 0.0..1.0f64) {
        let AttentionShape { rows, tokens, heads, dim, .. } = case.shape;
        let mut rings = case.rings(seed);
        let whole = case.run(&Floats::best(), 2, &mut rings);
        for floats in Floats::available() {
            let mut others = case.rings(seed);
            let out = case.run(&floats, 1, &mut others);
            prop_assert_eq!(bits(&out), bits(&whole), "{:?}", floats);
            prop_assert_eq!(others.map(|ring| bits(&ring)), rings.each_ref().map(|ring| bits(ring)));
        }
        // In two pieces, and token by token.
        let at = (cut * tokens as f64) as usize;
        let pieces = [vec![0..at, at..tokens], (0..tokens).map(|token| token..token + 1).collect()];
        for pieces in pieces {
            let mut others = case.rings(seed);
            let mut out = vec![0.0; whole.len()];
            let each = heads * dim;
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                let part = case.part(piece.start, piece.end).run(&Floats::best(), 2, &mut others);
                for (row, part) in (0..rows).zip(part.chunks_exact(piece.len() * each)) {
                    out[(row * tokens + piece.start) * each..][..piece.len() * each].copy_from_slice(part);
                }
            }
            prop_assert_eq!(bits(&out), bits(&whole));
        }
    }

    #[test]
    fn the_recurrence_has_the_same_bits_with_every_instruction_set_company_and_chunk(
        (rows, tokens) in (1usize..=5, 1usize..=6),
        (heads, gate, taps) in (1usize..=3, prop_oneof![1usize..=70, Just(64), Just(96)], 1usize..=4),
        seed in any::<u64>(),
    ) {
        let shape = RecurrentShape { rows, tokens, heads, gate, taps };
        let case = Recurrent::new(shape, seed);
        let whole = case.run(&Floats::best(), &case.state);
        for floats in Floats::available() {
            prop_assert_eq!(case.run(&floats, &case.state).bits(), whole.bits(), "{:?}", floats);
        }
        for row in 0..rows {
            let mut alone = Results { state: case.row_state(row), mixed: Vec::new() };
            for token in 0..tokens {
                let step = case.one(row, token);
                let next = step.run(&Floats::best(), &alone.state);
                alone.mixed.extend(next.mixed);
                alone.state = next.state;
            }
            prop_assert_eq!(alone.bits(), case.row(&whole, row).bits());
        }
    }

    #[test]
    fn elementwise_functions_have_the_same_bits_with_every_instruction_set(count in 1usize..100, seed in any::<u64>()) {
        let mut random = Random(seed);
        let x: Vec<f32> = (0..2 * count).map(|_| random.plain() * 40.0).collect();
        let results = |floats: &Floats| {
            let (mut gated, mut capped) = (vec![0.0; count], vec![0.0; 2 * count]);
            floats.gated_gelu(&x, &mut gated);
            floats.soft_cap(30.0, &x, &mut capped);
            let mut powers = x.clone();
            floats.exponentials(40.0, 0.7, &mut powers);
            [bits(&gated), bits(&capped), bits(&powers)]
        };
        for floats in Floats::available() {
            prop_assert_eq!(results(&floats), results(&Floats::best()), "{:?}", floats);
        }
    }
}

/// The convolution's inputs and the hidden state.
#[derive(Debug, Clone)]
struct State {
    conv: Vec<f32>,
    lru: Vec<f32>,
}

/// What a step gives.
struct Results {
    mixed: Vec<f32>,
    state: State,
}

impl Results {
    fn bits(&self) -> [Vec<u32>; 3] {
        [bits(&self.mixed), bits(&self.state.conv), bits(&self.state.lru)]
    }
}

/// A step of a recurrent block.
#[derive(Debug, Clone)]
struct Recurrent {
    shape: RecurrentShape,
    gates: Vec<f32>,
    gates_bias: Vec<f32>,
    log_decay: Vec<f32>,
    conv_bias: Vec<f32>,
    taps: Vec<Vec<f32>>,
    branches: Vec<f32>,
    continues: Vec<f32>,
    state: State,
}

impl Recurrent {
    fn new(shape: RecurrentShape, seed: u64) -> Self {
        let RecurrentShape { rows, tokens, heads, gate, taps } = shape;
        let (width, mut random) = (shape.width(), Random(seed));
        let mut numbers = |count: usize| (0..count).map(|_| random.plain()).collect::<Vec<_>>();
        Self {
            shape,
            gates: numbers(2 * heads * gate * gate),
            gates_bias: numbers(2 * width),
            log_decay: numbers(width).iter().map(|value| -8.0 * value.abs()).collect(),
            conv_bias: numbers(width),
            taps: (0..taps).map(|_| numbers(width)).collect(),
            branches: numbers(2 * rows * tokens * width),
            // Some rows begin.
            continues: (0..rows * tokens).map(|at| f32::from(u8::from(at % tokens > 0 || at % 2 == 1))).collect(),
            state: State { conv: numbers(rows * (taps - 1) * width), lru: numbers(rows * width) },
        }
    }

    fn run(&self, floats: &Floats, state: &State) -> Results {
        let mut results = Results {
            mixed: vec![f32::NAN; self.shape.rows * self.shape.tokens * self.shape.width()],
            state: State { conv: vec![f32::NAN; state.conv.len()], lru: vec![f32::NAN; state.lru.len()] },
        };
        let taps: Vec<&[f32]> = self.taps.iter().map(Vec::as_slice).collect();
        let step = RecurrentStep {
            shape: self.shape,
            weights: RecurrentWeights {
                gates: &self.gates,
                gates_bias: &self.gates_bias,
                log_decay: &self.log_decay,
                conv_bias: &self.conv_bias,
                taps: &taps,
            },
            branches: &self.branches,
            conv: &state.conv,
            lru: &state.lru,
            continues: &self.continues,
        };
        let mut pool = Pool::new(2, std::time::Duration::ZERO).unwrap();
        let mut out =
            RecurrentOutput { mixed: &mut results.mixed, conv: &mut results.state.conv, lru: &mut results.state.lru };
        recurrent_with(floats, &mut pool, &step, &mut out);
        results
    }

    fn row_state(&self, row: usize) -> State {
        let RecurrentShape { taps, .. } = self.shape;
        let width = self.shape.width();
        let kept = (taps - 1) * width;
        State {
            conv: self.state.conv[row * kept..][..kept].to_vec(),
            lru: self.state.lru[row * width..][..width].to_vec(),
        }
    }

    /// One token of one row by itself.
    fn one(&self, row: usize, token: usize) -> Self {
        let (at, width) = (row * self.shape.tokens + token, self.shape.width());
        Self {
            shape: RecurrentShape { rows: 1, tokens: 1, ..self.shape },
            branches: self.branches[at * 2 * width..][..2 * width].to_vec(),
            continues: vec![self.continues[at]],
            ..self.clone()
        }
    }

    /// A row's part of the results.
    fn row(&self, results: &Results, row: usize) -> Results {
        let RecurrentShape { tokens, taps, .. } = self.shape;
        let width = self.shape.width();
        let (all, kept) = (tokens * width, (taps - 1) * width);
        Results {
            mixed: results.mixed[row * all..][..all].to_vec(),
            state: State {
                conv: results.state.conv[row * kept..][..kept].to_vec(),
                lru: results.state.lru[row * width..][..width].to_vec(),
            },
        }
    }
}
