use proptest::prelude::*;

use super::*;

fn plain(temperature: f32, seed: u64) -> Sampling {
    Sampling {
        temperature,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        seed,
    }
}

fn choose(sampling: Sampling, logits: &[f32]) -> u32 {
    Sampler::new(sampling, None, &[0]).choose(&mut logits.to_vec()).unwrap().token
}

/// How often each token is drawn.
fn histogram(sampling: &Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(sampling.clone(), None, &[0]);
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..draws {
        counts[sampler.choose(&mut logits.to_vec()).unwrap().token as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn temperature_zero_takes_the_most_probable() {
    assert_eq!(choose(plain(0.0, 1), &[0.0, 3.0, 2.0, 3.0]), 1);
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_probable() {
    let logits = [0.0, (2.0f32).ln(), (5.0f32).ln()];
    let counts = histogram(&plain(1.0, 42), &logits, 20_000);
    for (have, want) in counts.iter().zip([0.125, 0.25, 0.625]) {
        assert!((have - want).abs() < 0.015, "{counts:?}");
    }
    let sharp = histogram(&plain(0.5, 42), &logits, 20_000);
    for (have, want) in sharp.iter().zip([1.0 / 30.0, 4.0 / 30.0, 25.0 / 30.0]) {
        assert!((have - want).abs() < 0.015, "{sharp:?}");
    }
}

#[test]
fn filters_leave_only_what_they_allow() {
    let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    let drawn = |sampling: Sampling| -> Vec<usize> {
        let counts = histogram(&sampling, &logits, 3000);
        (0..4).filter(|&token| counts[token] > 0.0).collect()
    };
    assert_eq!(drawn(plain(1.0, 1)), [0, 1, 2, 3]);
    assert_eq!(drawn(Sampling { top_k: 2, ..plain(1.0, 1) }), [0, 1]);
    assert_eq!(drawn(Sampling { top_k: 9, ..plain(1.0, 1) }), [0, 1, 2, 3]);
    assert_eq!(drawn(Sampling { top_p: 0.79, ..plain(1.0, 1) }), [0, 1]);
    assert_eq!(drawn(Sampling { top_p: 0.81, ..plain(1.0, 1) }), [0, 1, 2]);
    assert_eq!(drawn(Sampling { top_p: 0.01, ..plain(1.0, 1) }), [0]);
    assert_eq!(drawn(Sampling { min_p: 0.25, ..plain(1.0, 1) }), [0, 1, 2]);
    assert_eq!(drawn(Sampling { min_p: 1.0, ..plain(1.0, 1) }), [0]);
}

#[test]
fn penalties_look_at_prompt_and_answer() {
    let logits = [1.0, 1.1, -1.0];
    // Token 1 is in the prompt, then in the answer.
    let mut sampler = Sampler::new(Sampling { presence_penalty: 0.5, ..plain(0.0, 0) }, None, &[1]);
    assert_eq!(sampler.choose(&mut logits.to_vec()).unwrap().token, 0);
    assert_eq!(sampler.choose(&mut logits.to_vec()).unwrap().token, 1);
    let mut sampler = Sampler::new(Sampling { frequency_penalty: 0.04, ..plain(0.0, 0) }, None, &[1, 1, 1]);
    assert_eq!(sampler.choose(&mut logits.to_vec()).unwrap().token, 0);
    // A negative logit is multiplied: it falls too.
    let mut sampler = Sampler::new(Sampling { repetition_penalty: 2.0, ..plain(0.0, 0) }, None, &[2, 0, 1]);
    let mut adjusted = logits.to_vec();
    sampler.choose(&mut adjusted).unwrap();
    assert_eq!(adjusted, [0.5, 0.55, -2.0]);
}

#[test]
fn penalties_forget_what_is_far_behind() {
    let mut prompt = vec![1u32];
    prompt.extend(std::iter::repeat_n(2, PENALTY_WINDOW));
    let mut sampler = Sampler::new(Sampling { presence_penalty: 1.0, ..plain(0.0, 0) }, None, &prompt);
    assert_eq!(sampler.choose(&mut [0.5, 1.0, 1.5]).unwrap().token, 1);
    assert_eq!(sampler.seen.last.len(), PENALTY_WINDOW);
}

#[test]
fn bias_forbids_and_forces() {
    let sampling = Sampling { logit_bias: vec![(1, -1000.0)], ..plain(0.0, 0) };
    assert_eq!(choose(sampling, &[1.0, 9.0, 2.0]), 2);
    let sampling = Sampling { logit_bias: vec![(0, 1000.0)], ..plain(1.0, 0) };
    assert_eq!(choose(sampling, &[1.0, 9.0, 2.0]), 0);
}

#[test]
fn log_probabilities_are_those_of_the_model_before_any_adjustment() {
    let sampling = Sampling { logit_bias: vec![(2, 50.0)], ..plain(0.0, 0) };
    let mut sampler = Sampler::new(sampling, Some(2), &[0]);
    let choice = sampler.choose(&mut [(0.5f32).ln(), (0.3f32).ln(), (0.2f32).ln()]).unwrap();
    let told = choice.logprobs.unwrap();
    assert_eq!((choice.token, told.chosen.0), (2, 2));
    assert!((told.chosen.1 - (0.2f32).ln()).abs() < 1e-6);
    assert_eq!(told.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
    assert!((told.top[0].1 - (0.5f32).ln()).abs() < 1e-6);
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(Sampler::new(plain(1.0, 0), None, &[0]).choose(&mut [0.0, bad]), Err(NotFinite::Model));
    }
}

#[test]
fn what_only_penalties_make_infinite_is_not_the_models_fault() {
    let divided = Sampling { repetition_penalty: 0.01, ..plain(1.0, 0) };
    let multiplied = Sampling { repetition_penalty: 100.0, ..plain(1.0, 0) };
    for (sampling, logit) in [(divided.clone(), f32::MAX), (multiplied, f32::MIN)] {
        assert_eq!(Sampler::new(sampling, None, &[0]).choose(&mut [logit, 1.0]), Err(NotFinite::Adjusted));
    }
    // Both are wrong: the model's came first.
    assert_eq!(Sampler::new(divided, None, &[0]).choose(&mut [f32::MAX, f32::NAN]), Err(NotFinite::Model));
}

/// A value of the range: its ends, what is next to them, 0, values near 0, and any other.
fn within(range: RangeInclusive<f32>) -> impl Strategy<Value = f32> {
    let (least, most) = (*range.start(), *range.end());
    let special = [0.0, -0.0, f32::from_bits(1), -f32::from_bits(1), f32::MIN_POSITIVE, 1e-38, 1e-30, 1e-7, 1.0];
    let mut special: Vec<f32> = special.into_iter().filter(|value| range.contains(value)).collect();
    special.extend([least, most, least.next_up(), most.next_down()]);
    prop_oneof![prop::sample::select(special), least..=most]
}

prop_compose! {
    /// Anything that a request may set.
    fn allowed()(
        temperature in within(Sampling::TEMPERATURE),
        top_k in 0..50u32,
        top_p in within(f32::from_bits(1)..=1.0),
        min_p in within(Sampling::MIN_P),
        repetition_penalty in within(Sampling::REPETITION_PENALTY),
        presence_penalty in within(Sampling::PENALTY),
        frequency_penalty in within(Sampling::PENALTY),
        logit_bias in prop::collection::btree_map(0..40u32, within(Sampling::LOGIT_BIAS), 0..40),
        seed in any::<u64>(),
    ) -> Sampling {
        let logit_bias = logit_bias.into_iter().collect();
        Sampling {
            temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias, seed,
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_allowed_keeps_logits_finite(
        sampling in allowed(),
        scale in prop::sample::select(vec![f32::from_bits(1), 1e-30, 1.0, 30.0, 1e4, 1e20, 1e35]),
        logits in prop::collection::vec(-1.0f32..=1.0, 40),
        prompt in prop::collection::vec(0..40u32, 0..1100),
    ) {
        let logits: Vec<f32> = logits.iter().map(|logit| logit * scale).collect();
        let mut sampler = Sampler::new(sampling, Some(20), &prompt);
        for _ in 0..3 {
            let mut adjusted = logits.clone();
            let choice = sampler.choose(&mut adjusted);
            // At temperature 0 these are the logits after the adjustments, otherwise the weights of the tokens.
            prop_assert!(adjusted.iter().all(|value| value.is_finite()), "{:?}", adjusted);
            let choice = choice.unwrap();
            prop_assert!((choice.token as usize) < logits.len());
            let told = choice.logprobs.unwrap();
            prop_assert!(std::iter::once(&told.chosen).chain(&told.top).all(|(_, logprob)| logprob.is_finite()));
        }
    }
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_tokens(seed in any::<u64>(), logits in prop::collection::vec(-30.0f32..30.0, 2..40)) {
        let run = || -> Vec<u32> {
            let mut sampler = Sampler::new(Sampling { top_p: 0.9, ..plain(0.8, seed) }, None, &[0]);
            (0..5).map(|_| sampler.choose(&mut logits.clone()).unwrap().token).collect()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn extreme_settings_choose_some_token(
        logits in prop::collection::vec(-1e30f32..1e30, 1..40),
        temperature in prop_oneof![Just(0.0f32), Just(1e-30), Just(100.0), 0.0f32..2.0],
        top_p in prop_oneof![Just(1e-30f32), Just(1.0), 0.1f32..1.0],
        min_p in 0.0f32..=1.0,
        top_k in 0..50u32,
    ) {
        let sampling = Sampling { top_k, top_p, min_p, ..plain(temperature, 3) };
        prop_assert!((choose(sampling, &logits) as usize) < logits.len());
    }
}
