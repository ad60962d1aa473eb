//! How the next token is chosen: checks and defaults.

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
    let zero = Least::Included(0.0);
    let above_zero = Least::Excluded(0.0);
    let penalty = Least::Included(-100.0);
    for (field, value, least, most) in [
        ("temperature", wire.temperature, zero, 100.0),
        ("top_p", wire.top_p, above_zero, 1.0),
        ("min_p", wire.min_p, zero, 1.0),
        ("repetition_penalty", wire.repetition_penalty, above_zero, 100.0),
        ("presence_penalty", wire.presence_penalty, penalty, 100.0),
        ("frequency_penalty", wire.frequency_penalty, penalty, 100.0),
    ] {
        if let Some(value) = value
            && !least.allows(value, most)
        {
            violations.add(format!("sampling.{field}"), format!("{value} is not allowed: {}", least.words(most)));
        }
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
        let range = Least::Included(-1000.0);
        if !range.allows(*bias, 1000.0) {
            violations.add(field(), format!("{bias} is not allowed: {}", range.words(1000.0)));
        }
    }
}

/// The lower bound of a field; its upper bound is always allowed.
#[derive(Clone, Copy)]
enum Least {
    Included(f32),
    Excluded(f32),
}

impl Least {
    /// Whether a value is within the bounds; what is not a number never is.
    fn allows(self, value: f32, most: f32) -> bool {
        let enough = match self {
            Self::Included(least) => value >= least,
            Self::Excluded(least) => value > least,
        };
        enough && value <= most
    }

    fn words(self, most: f32) -> String {
        match self {
            Self::Included(least) => format!("{least} to {most}"),
            Self::Excluded(least) => format!("above {least} up to {most}"),
        }
    }
}

/// A seed drawn at random. Where the system has no random numbers, the clock stands in: a seed is no secret.
fn random_seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
    })
}
