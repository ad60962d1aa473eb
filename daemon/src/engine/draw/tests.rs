use proptest::prelude::*;

use super::*;

/// What [`draw`] does, by sorting all tokens.
fn defined(sampling: &Sampling, logits: &[f32], random: f64) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut powers = logits.to_vec();
    exponentials(most, sampling.temperature, &mut powers);
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    tokens.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    if sampling.top_k > 0 {
        tokens.truncate(sampling.top_k as usize);
    }
    let weight = |token: &u32| f64::from(powers[*token as usize]);
    if sampling.top_p < 1.0 {
        let mut wanted = f64::from(sampling.top_p) * tokens.iter().map(weight).sum::<f64>();
        let kept = tokens.iter().take_while(|token| {
            let goes_on = wanted > 0.0;
            wanted -= weight(token);
            goes_on
        });
        let kept = kept.count().max(1);
        tokens.truncate(kept);
    }
    tokens.retain(|token| powers[*token as usize] >= sampling.min_p && powers[*token as usize] > 0.0);
    tokens.sort_unstable();
    let mut left = random * tokens.iter().map(weight).sum::<f64>();
    for token in &tokens {
        left -= weight(token);
        if left < 0.0 {
            return *token;
        }
    }
    *tokens.last().unwrap()
}

/// Logits on a grid: many are equal, and those that differ have different weights.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let flat = prop::collection::vec(-40i32..40, 1..5000);
    let peaked = (prop::collection::vec(-240i32..-80, 1..5000), 0i32..240, any::<prop::sample::Index>()).prop_map(
        |(mut grid, peak, at)| {
            let at = at.index(grid.len());
            grid[at] = peak;
            grid
        },
    );
    prop_oneof![flat, peaked].prop_map(|grid| grid.into_iter().map(|step| step as f32 / 8.0).collect())
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(1.0f32), 0.1f32..3.0];
    let top_k = prop_oneof![Just(0u32), Just(1), Just(64), 1u32..6000];
    let top_p = prop_oneof![Just(1.0f32), Just(1e-9), Just(0.95), 0.001f32..0.9999];
    let min_p = prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..0.3];
    (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 0,
    })
}

proptest! {
    #[test]
    fn tokens_are_drawn_as_defined(logits in logits(), sampling in sampling(), random in 0.0f64..1.0) {
        let most = largest(&logits).unwrap();
        prop_assert_eq!(draw(&sampling, most, &mut logits.clone(), random), defined(&sampling, &logits, random));
    }

    #[test]
    fn the_most_probable_are_the_first_of_all_in_order(logits in logits(), count in 0usize..6000) {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(count);
        prop_assert_eq!(most_probable(&logits, count), all);
    }

    #[test]
    fn sums_of_exponentials_are_exact(logits in logits()) {
        let most = largest(&logits).unwrap();
        prop_assert_eq!(logits[first_of(&logits, most) as usize], most);
        let exact = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        prop_assert!((log_sum_exp(&logits, most) - exact).abs() < 1e-6);
    }

    #[test]
    fn one_value_that_is_not_finite_is_found(
        mut logits in logits(),
        at in any::<prop::sample::Index>(),
        bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ) {
        let at = at.index(logits.len());
        logits[at] = bad;
        prop_assert_eq!(largest(&logits), None);
    }
}

/// Not a test of the result: what a choice costs at the largest vocabulary.
#[test]
#[ignore = "prints times: cargo test --release -p recurved cost_of_a_choice -- --ignored --nocapture"]
fn cost_of_a_choice() {
    use std::time::Instant;

    use crate::engine::sample::Sampler;

    let mut random = 1u64;
    let logits: Vec<f32> = (0..256_000)
        .map(|token| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = (random >> 40) as f32 / (1 << 24) as f32;
            // A few tokens stand out, as with a trained model.
            noise * 8.0 - 12.0 + if token % 10_007 == 5 { 16.0 * noise } else { 0.0 }
        })
        .collect();
    let plain = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 1,
    };
    let cases = [
        ("greedy", Sampling { temperature: 0.0, ..plain.clone() }, None),
        ("temperature 1", plain.clone(), None),
        ("top-k 64, top-p 0.95", Sampling { top_k: 64, top_p: 0.95, ..plain.clone() }, None),
        ("top-p 0.95", Sampling { top_p: 0.95, ..plain.clone() }, None),
        ("min-p 0.05", Sampling { min_p: 0.05, ..plain.clone() }, None),
        ("repetition penalty 1.1", Sampling { repetition_penalty: 1.1, temperature: 0.0, ..plain.clone() }, None),
        ("greedy, 20 log-probabilities", Sampling { temperature: 0.0, ..plain }, Some(20)),
    ];
    for (name, sampling, top) in cases {
        let mut sampler = Sampler::new(sampling, top, &[1, 2, 3]);
        let mut times: Vec<_> = (0..101)
            .map(|_| {
                let mut logits = logits.clone();
                let begun = Instant::now();
                std::hint::black_box(sampler.choose(&mut logits).unwrap());
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{name}: {} µs", times[times.len() / 2].as_micros());
    }
}
