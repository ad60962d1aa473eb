//! The oracle: the whole forward pass over a sequence, slow, obvious, and the same to the last bit on every machine. Sums
//! run in a fixed order and transcendental functions come from `libm`, never from the platform. It keeps no state from
//! token to token, so that it cannot share a mistake with the stepping graph; it reads weights a few rows at a time, so
//! that a model of any size fits into memory.
//!
//! The mathematics is that of Hugging Face's `modeling_recurrent_gemma.py` without cache.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::config::{BlockType, ModelConfig};
use crate::quantize::Importance;
use crate::quantize::importance::Inputs;
use crate::shapes::{EMBEDDING, FINAL_NORM, layer_tensor};
use crate::shard::log_decay;
use crate::weights::{Weights, WeightsError};

/// Values of a matrix that are read at a time.
const ROWS_IN_MEMORY: usize = 1 << 21;

/// The logits `[last, vocab]` of the last positions of `tokens`.
///
/// # Errors
/// The weights cannot be read, or the model computes values that are not finite.
///
/// # Panics
/// If a token is not below the vocabulary size, or `last` is larger than the number of tokens.
pub fn logits(
    config: &ModelConfig,
    weights: &dyn Weights,
    tokens: &[u32],
    last: usize,
) -> Result<Vec<f32>, WeightsError> {
    assert!(last <= tokens.len(), "no more positions than tokens");
    let net = Network { config, weights, inputs: None };
    let hidden = config.hidden_size;
    let x = net.rms(&stream(&net, tokens)?[(tokens.len() - last) * hidden..], FINAL_NORM)?;
    let mut logits = net.product(&x, EMBEDDING, config.vocab_size, hidden)?;
    let cap = config.logits_soft_cap;
    logits.iter_mut().for_each(|value| *value = cap * libm::tanhf(*value / cap));
    Ok(logits)
}

/// What flows into each matrix while the model reads these texts, each from its beginning.
///
/// # Errors
/// The weights cannot be read.
///
/// # Panics
/// If a token is not below the vocabulary size.
pub fn importance<'a>(
    config: &ModelConfig,
    weights: &dyn Weights,
    texts: impl Iterator<Item = &'a [u32]>,
) -> Result<Importance, WeightsError> {
    let inputs = RefCell::new(Inputs::default());
    let net = Network { config, weights, inputs: Some(&inputs) };
    for tokens in texts {
        let x = net.rms(&stream(&net, tokens)?, FINAL_NORM)?;
        // The head is the largest matrix, and what it makes of this is not asked for.
        inputs.borrow_mut().add(EMBEDDING, &x, config.hidden_size);
    }
    Ok(inputs.into_inner().importance())
}

/// The residual stream `[tokens, hidden]` after the last layer.
fn stream(net: &Network<'_>, tokens: &[u32]) -> Result<Vec<f32>, WeightsError> {
    let Network { config, weights, .. } = *net;
    assert!(tokens.iter().all(|&token| (token as usize) < config.vocab_size), "tokens of the vocabulary");
    let hidden = config.hidden_size;
    let mut x = vec![0.0; tokens.len() * hidden];
    for (&token, row) in tokens.iter().zip(x.chunks_exact_mut(hidden)) {
        weights.read(EMBEDDING, token as usize * hidden, row)?;
        row.iter_mut().for_each(|value| *value *= config.embedding_scale());
    }
    finite(&x, EMBEDDING)?;
    for (layer, block) in config.blocks.iter().enumerate() {
        let name = |part: &str| layer_tensor(layer, part);
        let h = net.rms(&x, &name("temporal_pre_norm.weight"))?;
        let mixed = match block {
            BlockType::Recurrent => net.recurrent(&h, &name)?,
            BlockType::Attention => net.attention(&h, &name)?,
        };
        add(&mut x, &mixed);
        let h = net.rms(&x, &name("channel_pre_norm.weight"))?;
        add(&mut x, &net.mlp(&h, &name)?);
    }
    Ok(x)
}

/// Tokens for a golden test: the first one as a text begins, the others spread over the vocabulary by a fixed rule.
pub fn golden_tokens(config: &ModelConfig, count: usize) -> Vec<u32> {
    let vocab = config.vocab_size as u64;
    (0..count as u64)
        .map(|i| match (i, config.bos_token) {
            (0, Some(bos)) => bos,
            // Multiples of the golden ratio: low-discrepancy, whatever the vocabulary's size.
            (i, _) => ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).wrapping_mul(vocab).wrapping_shr(32) as u32,
        })
        .collect()
}

struct Network<'a> {
    config: &'a ModelConfig,
    weights: &'a dyn Weights,
    /// Takes what flows into the matrices, where that is asked for.
    inputs: Option<&'a RefCell<Inputs>>,
}

impl Network<'_> {
    fn rms(&self, x: &[f32], name: &str) -> Result<Vec<f32>, WeightsError> {
        let hidden = self.config.hidden_size;
        let weight = self.weights.all(name, hidden)?;
        let mut out = x.to_vec();
        for row in out.chunks_exact_mut(hidden) {
            let mean = dot(row, row) / hidden as f32;
            // It would make zeros of the whole row.
            finite(&[mean], name)?;
            let factor = 1.0 / (mean + self.config.rms_norm_eps).sqrt();
            for (value, weight) in row.iter_mut().zip(&weight) {
                *value = *value * factor * (1.0 + weight);
            }
        }
        finite(&out, name)?;
        Ok(out)
    }

    /// `x [tokens, columns]` times the transpose of the matrix: `[tokens, rows]`.
    fn product(&self, x: &[f32], matrix: &str, rows: usize, columns: usize) -> Result<Vec<f32>, WeightsError> {
        if let Some(inputs) = self.inputs {
            inputs.borrow_mut().add(matrix, x, columns);
        }
        let tokens = x.len() / columns;
        let mut out = vec![0.0; tokens * rows];
        let run = (ROWS_IN_MEMORY / columns).clamp(1, rows);
        let mut buffer = Vec::new();
        for first in (0..rows).step_by(run) {
            let count = run.min(rows - first);
            buffer.resize(count * columns, 0.0);
            self.weights.read(matrix, first * columns, &mut buffer)?;
            let sums: Vec<f32> = buffer
                .par_chunks_exact(columns)
                .flat_map_iter(|row| x.chunks_exact(columns).map(|x| dot(row, x)))
                .collect();
            for (row, sums) in sums.chunks_exact(tokens.max(1)).enumerate() {
                for (token, sum) in sums.iter().enumerate() {
                    out[token * rows + first + row] = *sum;
                }
            }
        }
        finite(&out, matrix)?;
        Ok(out)
    }

    fn linear(
        &self,
        x: &[f32],
        layer: &str,
        rows: usize,
        columns: usize,
        bias: bool,
    ) -> Result<Vec<f32>, WeightsError> {
        let mut out = self.product(x, &format!("{layer}.weight"), rows, columns)?;
        if bias {
            let name = format!("{layer}.bias");
            let bias = self.weights.all(&name, rows)?;
            out.chunks_exact_mut(rows).for_each(|row| add(row, &bias));
            finite(&out, &name)?;
        }
        Ok(out)
    }

    fn mlp(&self, x: &[f32], name: &dyn Fn(&str) -> String) -> Result<Vec<f32>, WeightsError> {
        let (hidden, width) = (self.config.hidden_size, self.config.mlp_width);
        let mut gate = self.linear(x, &name("mlp_block.gate_proj"), width, hidden, true)?;
        let up = self.linear(x, &name("mlp_block.up_proj"), width, hidden, true)?;
        for (gate, up) in gate.iter_mut().zip(&up) {
            *gate = gelu_tanh(*gate) * up;
        }
        self.linear(&gate, &name("mlp_block.down_proj"), hidden, width, true)
    }

    fn recurrent(&self, x: &[f32], name: &dyn Fn(&str) -> String) -> Result<Vec<f32>, WeightsError> {
        let (hidden, width) = (self.config.hidden_size, self.config.lru_width);
        let y = self.linear(x, &name("temporal_block.linear_y"), width, hidden, true)?;
        let u = self.linear(x, &name("temporal_block.linear_x"), width, hidden, true)?;
        let u = self.conv(&u, name)?;
        let mut h = self.rg_lru(&u, name)?;
        for (h, y) in h.iter_mut().zip(&y) {
            *h *= gelu_tanh(*y);
        }
        self.linear(&h, &name("temporal_block.linear_out"), hidden, width, true)
    }

    fn conv(&self, u: &[f32], name: &dyn Fn(&str) -> String) -> Result<Vec<f32>, WeightsError> {
        let (width, taps) = (self.config.lru_width, self.config.conv_width);
        let weight = self.weights.all(&name("temporal_block.conv_1d.weight"), width * taps)?;
        let bias = self.weights.all(&name("temporal_block.conv_1d.bias"), width)?;
        let mut out = vec![0.0; u.len()];
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            for (channel, out) in out.iter_mut().enumerate() {
                let seen = (0..taps).filter_map(|tap| {
                    let from = (t + tap + 1).checked_sub(taps)?;
                    Some(weight[channel * taps + tap] * u[from * width + channel])
                });
                *out = seen.sum::<f32>() + bias[channel];
            }
        }
        finite(&out, &name("temporal_block.conv_1d"))?;
        Ok(out)
    }

    fn rg_lru(&self, u: &[f32], name: &dyn Fn(&str) -> String) -> Result<Vec<f32>, WeightsError> {
        let width = self.config.lru_width;
        let input = self.gate(u, name, "input")?;
        let recurrent = self.gate(u, name, "recurrent")?;
        let param = self.weights.all(&name("temporal_block.rg_lru.recurrent_param"), width)?;
        let decay: Vec<f32> = param.into_iter().map(log_decay).collect();
        let mut out = vec![0.0; u.len()];
        let mut state = vec![0.0; width];
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            for channel in 0..width {
                let at = t * width + channel;
                let log_a = recurrent[at] * decay[channel];
                let (a, root) = match t {
                    0 => (0.0, 1.0),
                    _ => (libm::expf(log_a), (1.0 - libm::expf(2.0 * log_a)).sqrt()),
                };
                state[channel] = a * state[channel] + root * (input[at] * u[at]);
            }
            out.copy_from_slice(&state);
        }
        finite(&out, &name("temporal_block.rg_lru"))?;
        Ok(out)
    }

    /// `σ(u W + b)` with one block of W for each head; W is stored `[heads, in, out]`.
    fn gate(&self, u: &[f32], name: &dyn Fn(&str) -> String, side: &str) -> Result<Vec<f32>, WeightsError> {
        let (width, heads, block) = (self.config.lru_width, self.config.heads, self.config.gate_width());
        let part = |what: &str| name(&format!("temporal_block.rg_lru.{side}_gate_{what}"));
        let weight = self.weights.all(&part("weight"), heads * block * block)?;
        let bias = self.weights.all(&part("bias"), width)?;
        let mut out = vec![0.0; u.len()];
        out.par_chunks_exact_mut(width).zip(u.par_chunks_exact(width)).for_each(|(out, u)| {
            for (head, (out, u)) in out.chunks_exact_mut(block).zip(u.chunks_exact(block)).enumerate() {
                for (i, u) in u.iter().enumerate() {
                    let row = &weight[(head * block + i) * block..][..block];
                    out.iter_mut().zip(row).for_each(|(out, weight)| *out += u * weight);
                }
            }
            for (out, bias) in out.iter_mut().zip(&bias) {
                *out = sigmoid(*out + bias);
            }
        });
        Ok(out)
    }

    fn attention(&self, x: &[f32], name: &dyn Fn(&str) -> String) -> Result<Vec<f32>, WeightsError> {
        let config = self.config;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (queries, keys) = (config.heads * dim, config.kv_heads * dim);
        let side = |side: &str, rows| {
            self.linear(x, &name(&format!("temporal_block.{side}")), rows, hidden, config.attention_bias)
        };
        let (mut q, mut k, v) = (side("q_proj", queries)?, side("k_proj", keys)?, side("v_proj", keys)?);
        self.rotate(&mut q, queries);
        self.rotate(&mut k, keys);
        let scale = 1.0 / (dim as f32).sqrt();
        let group = config.heads / config.kv_heads;
        let mut out = vec![0.0; q.len()];
        out.par_chunks_exact_mut(queries).enumerate().for_each(|(t, out)| {
            let first = (t + 1).saturating_sub(config.window);
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                let q = &q[t * queries + head * dim..][..dim];
                let of = |all: &[f32], s: usize| all[s * keys + head / group * dim..][..dim].to_vec();
                let scores: Vec<f32> = (first..=t).map(|s| dot(q, &of(&k, s)) * scale).collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let shares: Vec<f32> = scores.iter().map(|score| libm::expf(score - max)).collect();
                let total: f32 = shares.iter().sum();
                for (s, share) in (first..=t).zip(&shares) {
                    let v = of(&v, s);
                    out.iter_mut().zip(&v).for_each(|(out, v)| *out += share / total * v);
                }
            }
        });
        self.linear(&out, &name("temporal_block.o_proj"), hidden, queries, true)
    }

    /// Rotates the first dimensions of each head, the first half of them against the second.
    fn rotate(&self, x: &mut [f32], width: usize) {
        let half = self.config.rotary_dim / 2;
        let frequencies = self.config.rotary_frequencies();
        for (t, row) in x.chunks_exact_mut(width).enumerate() {
            for head in row.chunks_exact_mut(self.config.head_dim) {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let angle = t as f64 * f64::from(*frequency);
                    let (sin, cos) = (libm::sin(angle) as f32, libm::cos(angle) as f32);
                    let (low, high) = (head[i], head[half + i]);
                    head[i] = low * cos - high * sin;
                    head[half + i] = high * cos + low * sin;
                }
            }
        }
    }
}

/// Fails where the model computes what no further step can use; `name` is what made these.
fn finite(values: &[f32], name: &str) -> Result<(), WeightsError> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(&value) => Err(WeightsError::Overflow { name: name.to_owned(), value }),
    }
}

/// The inner product, summed in sixteen lanes that are added at the end: an order of its own, but the same everywhere.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let (a_runs, b_runs) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_runs.remainder().iter().zip(b_runs.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_runs.zip(b_runs) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

fn gelu_tanh(x: f32) -> f32 {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + libm::tanhf(ROOT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
}
