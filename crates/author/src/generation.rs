//! From `generation_config.json` to `generation.json` and the tokens that begin and end a sequence.

use std::path::Path;

use recurve_bundle::{GenerationDefaults, REPETITION_PENALTY};
use recurve_model::ModelConfig;
use serde_json::Value;

use crate::error::ExportError;
use crate::json::Object;

/// What a checkpoint says about generating.
#[derive(Debug, PartialEq)]
pub(crate) struct Generation {
    /// For `generation.json`.
    pub(crate) defaults: GenerationDefaults,
    /// The token that begins every sequence.
    pub(crate) bos_token: Option<u32>,
    /// The tokens that end an answer, each once.
    pub(crate) end_tokens: Vec<u32>,
}

/// Reads the checkpoint's `generation_config.json`, where it has one. What that does not say about tokens,
/// `config.json` says; the tokens that either calls an end of text all end an answer.
pub(crate) fn read(dir: &Path, config: &ModelConfig) -> Result<Generation, ExportError> {
    let file = Object::read_optional(&dir.join("generation_config.json"))?;
    let token = |value: &Value| {
        let id = u32::try_from(value.as_u64()?).ok()?;
        ((id as usize) < config.vocab_size).then_some(id)
    };
    let tokens = |value: &Value| match value {
        Value::Array(list) => list.iter().map(token).collect(),
        one => token(one).map(|id| vec![id]),
    };
    let allowed = format!("a token id below vocab_size ({})", config.vocab_size);
    let bos_token = file.convert("bos_token_id", &allowed, token)?.or(config.bos_token);
    let listed = file.convert("eos_token_id", &format!("{allowed}, or a list of them"), tokens)?;
    let mut end_tokens = Vec::new();
    for id in listed.unwrap_or_default().into_iter().chain(config.end_tokens.iter().copied()) {
        if !end_tokens.contains(&id) {
            end_tokens.push(id);
        }
    }
    Ok(Generation { defaults: defaults(&file)?, bos_token, end_tokens })
}

/// The sampling defaults. `do_sample: false` means the likeliest token, whatever else the file says of sampling.
fn defaults(file: &Object) -> Result<GenerationDefaults, ExportError> {
    let number = |field: &str, allowed: &str, good: fn(f64) -> bool| {
        file.convert(field, allowed, |value| value.as_f64().filter(|&v| good(v)).map(|v| v as f32))
    };
    let count = |field: &str, allowed: &str, least: u64| {
        let convert = |value: &Value| value.as_u64().filter(|&v| v >= least).and_then(|v| u32::try_from(v).ok());
        file.convert(field, allowed, convert)
    };
    let do_sample = file.convert("do_sample", "true or false", Value::as_bool)?;
    let max_tokens = count("max_new_tokens", "a number from 1 to 4294967295", 1)?;
    let repetition_penalty = number("repetition_penalty", "0.01 to 100", |v| REPETITION_PENALTY.contains(&(v as f32)))?;
    let repetition_penalty = repetition_penalty.filter(|&penalty| penalty != 1.0);
    let chosen = GenerationDefaults {
        temperature: number("temperature", "0 to 100", |v| (0.0..=100.0).contains(&v))?,
        top_k: count("top_k", "a number from 0 to 4294967295", 0)?,
        top_p: number("top_p", "above 0, at most 1", |v| v > 0.0 && v <= 1.0)?,
        min_p: number("min_p", "0 to 1", |v| (0.0..=1.0).contains(&v))?,
        repetition_penalty,
        max_tokens,
        ..GenerationDefaults::new()
    };
    Ok(match do_sample {
        Some(false) => {
            GenerationDefaults { temperature: Some(0.0), repetition_penalty, max_tokens, ..GenerationDefaults::new() }
        }
        // The file asks for sampling, and its authors' library samples at 1 unless told otherwise.
        Some(true) => GenerationDefaults { temperature: chosen.temperature.or(Some(1.0)), ..chosen },
        None => chosen,
    })
}
