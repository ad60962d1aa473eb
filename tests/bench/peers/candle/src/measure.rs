//! Times every step of candle's model: prefill of 128 tokens, and decode around given positions.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::{D, Device, Tensor};
use candle_transformers::models::quantized_recurrent_gemma::{Model, VarBuilder};
use serde_json::{Value, json};

use crate::shape;

/// Tokens of the prefill that is timed, and how often.
const PREFILL: usize = 128;
const PREFILLS: usize = 3;
/// Steps that are timed, the position asked for in their middle, after the warm ones: the first packs the weights.
const STEPS: usize = 32;
const WARM_STEPS: usize = 8;

/// Tokens from a fixed linear recurrence: any will do, and the same for every run.
fn tokens(count: usize) -> candle_core::Result<Tensor> {
    let list: Vec<u32> = (0..count as u32).map(|i| 3 + i.wrapping_mul(7919) % 250_000).collect();
    Tensor::from_vec(list, (1, count), &Device::Cpu)
}

fn best(logits: &Tensor) -> candle_core::Result<Tensor> {
    logits.argmax(D::Minus1)?.reshape((1, 1))
}

/// Seconds of each timed prefill of `PREFILL` tokens, each from an empty state.
fn prefill(empty: &Model) -> candle_core::Result<Vec<f64>> {
    let prompt = tokens(PREFILL)?;
    let mut seconds = Vec::with_capacity(PREFILLS);
    for round in 0..=PREFILLS {
        let mut model = empty.clone();
        let begun = Instant::now();
        best(&model.forward(&prompt, 0)?)?;
        // The first one packs.
        if round > 0 {
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// Seconds of each of `STEPS` greedy steps around `position`, after a prefill of what comes before.
fn decode(empty: &Model, position: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    let before = STEPS / 2 + WARM_STEPS;
    let prompt = position.checked_sub(before).filter(|&p| p > 0);
    let prompt = prompt.ok_or_else(|| format!("position {position}: must be more than {before}"))?;
    let mut model = empty.clone();
    let mut token = best(&model.forward(&tokens(prompt)?, 0)?)?;
    let mut seconds = Vec::with_capacity(STEPS);
    for step in 0..WARM_STEPS + STEPS {
        let begun = Instant::now();
        token = best(&model.forward(&token, prompt + step)?)?;
        if step >= WARM_STEPS {
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// Bytes of this process that are in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()).ok_or("no VmRSS in /proc/self/status")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// Measures the model in the file at the positions.
///
/// # Errors
/// When the file is not a model of the shape, or a position is too small or past what candle can address.
pub fn report(path: &Path, format: &str, positions: &[usize]) -> Result<Value, Box<dyn Error>> {
    let model = Model::new(&shape::config(), VarBuilder::from_gguf(path, &Device::Cpu)?)?;
    let mut rows = Vec::new();
    for &position in positions {
        rows.push(
            json!({"measure": "decode", "position": position, "tokens": 1, "seconds": decode(&model, position)?}),
        );
    }
    rows.push(json!({"measure": "prefill", "position": 0, "tokens": PREFILL, "seconds": prefill(&model)?}));
    Ok(json!({
        "peer": "candle quantized_recurrent_gemma",
        "model": "RecurrentGemma-2B",
        "format": format,
        "weights_bytes": std::fs::metadata(path)?.len(),
        "resident_bytes": resident()?,
        "rows": rows,
    }))
}
