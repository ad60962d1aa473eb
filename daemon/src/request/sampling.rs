//! How the next token is chosen: checks and defaults.

use std::ops::RangeInclusive;

use recurve_proto::v1;

use super::violations::Violations;
use crate::engine::sample::Sampling;
use crate::model::Model;

const MAX_BIASES: usize = 1024;

/// Checks the settings and fills in the bundle's defaults. The result counts only if nothing was found.
pub(super) fn parse(wire: v1::Sampling, model: &Model, violations: &mut Violations) -> Sampling {
    check(&wire, model.vocab_size, violations);
    let defaults = &model.defaults;
    let mut logit_bias: Vec<(u32, f32)> = wire.logit_bias.into_iter().collect();
    logit_bias.sort_unstable_by_key(|(token, _)| *token);
    Sampling {
        temperature: wire.temperature.unwrap_or(defaults.temperature),
        top_k: wire.top_k.unwrap_or(defaults.top_k),
        top_p: wire.top_p.unwrap_or(defaults.top_p),
        min_p: wire.min_p.unwrap_or(defaults.min_p),
        repetition_penalty: wire.repetition_penalty.unwrap_or(defaults.repetition_penalty),
        presence_penalty: wire.presence_penalty.unwrap_or(0.0),
        frequency_penalty: wire.frequency_penalty.unwrap_or(0.0),
        logit_bias,
        seed: wire.seed.unwrap_or_else(random_seed),
    }
}

/// Finds what is wrong with the fields that are set.
fn check(wire: &v1::Sampling, vocab_size: u32, violations: &mut Violations) {
    for (field, value, allowed) in [
        ("temperature", wire.temperature, Sampling::TEMPERATURE),
        ("min_p", wire.min_p, Sampling::MIN_P),
        ("repetition_penalty", wire.repetition_penalty, Sampling::REPETITION_PENALTY),
        ("presence_penalty", wire.presence_penalty, Sampling::PENALTY),
        ("frequency_penalty", wire.frequency_penalty, Sampling::PENALTY),
    ] {
        if let Some(value) = value {
            check_range(format!("sampling.{field}"), value, &allowed, violations);
        }
    }
    // What is not a number is refused, too.
    if let Some(top_p) = wire.top_p
        && !(top_p > 0.0 && top_p <= 1.0)
    {
        violations.add("sampling.top_p", format!("{top_p} is not allowed: above 0 up to 1"));
    }
    if let Some(k) = wire.top_k
        && k > vocab_size
    {
        violations.add("sampling.top_k", format!("{k} is not allowed: 0 (all) to {vocab_size}, the vocabulary"));
    }
    check_bias(wire, vocab_size, violations);
}

fn check_bias(wire: &v1::Sampling, vocab_size: u32, violations: &mut Violations) {
    if wire.logit_bias.len() > MAX_BIASES {
        let count = wire.logit_bias.len();
        violations.add("sampling.logit_bias", format!("{count} entries are not allowed: at most {MAX_BIASES}"));
        return;
    }
    let mut entries: Vec<_> = wire.logit_bias.iter().collect();
    entries.sort_unstable_by_key(|(token, _)| **token);
    for (token, bias) in entries {
        let field = || format!("sampling.logit_bias[{token}]");
        if *token >= vocab_size {
            violations.add(field(), format!("token {token} does not exist: ids are below {vocab_size}"));
        }
        check_range(field(), *bias, &Sampling::LOGIT_BIAS, violations);
    }
}

/// What is not a number is in no range.
fn check_range(field: String, value: f32, allowed: &RangeInclusive<f32>, violations: &mut Violations) {
    if !allowed.contains(&value) {
        violations.add(field, format!("{value} is not allowed: {} to {}", allowed.start(), allowed.end()));
    }
}

/// A seed drawn at random. Where the system has no random numbers, the clock stands in: a seed is no secret.
fn random_seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
    })
}
