//! Every setting of a request does what the contract says of it.

use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{FinishReason, GenerateRequest, Sampling};
use recurve_tests::client::{Client, connect, generate, greedy, score, seeded};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::world::{self, TINY_CHUNK, TINY_WINDOW, ids};

async fn tiny() -> (Daemon, Client) {
    let daemon = Setup::new(&world::tiny("f32")).set("engine.threads", 1).start();
    let client = connect(&daemon).await;
    (daemon, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_every_length_near_a_chunk_and_a_window() {
    let (_daemon, client) = tiny().await;
    let lengths = [1, 2, TINY_CHUNK - 1, TINY_CHUNK, TINY_CHUNK + 1, 2 * TINY_CHUNK, TINY_WINDOW, TINY_WINDOW + 1, 200];
    for length in lengths {
        let prompt = ids(length, 1);
        let whole = generate(&client, greedy(&prompt, 10)).await.unwrap();
        assert_eq!((whole.tokens.len(), whole.reason()), (10, FinishReason::MaxTokens));
        assert_eq!(whole.finish.usage.unwrap().prompt_tokens, length as u64);
        // What was generated one by one is what a prompt that holds it goes on with.
        let longer: Vec<u32> = prompt.iter().chain(&whole.tokens[..4]).copied().collect();
        assert_eq!(generate(&client, greedy(&longer, 6)).await.unwrap().tokens, whole.tokens[4..], "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tokens_at_all() {
    let (_daemon, client) = tiny().await;
    let answer = generate(&client, greedy(&ids(20, 2), 0)).await.unwrap();
    assert_eq!((answer.tokens.len(), answer.deltas, answer.reason()), (0, 0, FinishReason::MaxTokens));
    let usage = answer.finish.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_repeats_an_answer() {
    let (_daemon, client) = tiny().await;
    let drawn = GenerateRequest {
        sampling: Some(Sampling { temperature: Some(1.0), ..Sampling::default() }),
        ..greedy(&[2, 9], 40)
    };
    let (one, other) = (generate(&client, drawn.clone()).await.unwrap(), generate(&client, drawn).await.unwrap());
    assert_ne!(one.tokens, other.tokens, "no seed, no repetition");
    assert_ne!(one.finish.seed, other.finish.seed);
    let again = generate(&client, seeded(&[2, 9], 40, one.finish.seed)).await.unwrap();
    assert_eq!((again.tokens, again.finish.seed), (one.tokens, one.finish.seed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logit_bias_forces_and_forbids() {
    let (_daemon, client) = tiny().await;
    let biased = |bias: &[(u32, f32)]| GenerateRequest {
        sampling: Some(Sampling {
            temperature: Some(0.0),
            logit_bias: bias.iter().copied().collect(),
            ..Sampling::default()
        }),
        ..greedy(&[2, 9], 12)
    };
    let free = generate(&client, biased(&[])).await.unwrap();
    assert_eq!(generate(&client, biased(&[(17, 1000.0)])).await.unwrap().tokens, [17; 12]);
    let without = generate(&client, biased(&[(free.tokens[0], -1000.0)])).await.unwrap();
    assert!(!without.tokens.contains(&free.tokens[0]), "{:?}", without.tokens);
    let ends = generate(&client, GenerateRequest { ignore_eos: false, ..biased(&[(1, 1000.0)]) }).await.unwrap();
    assert_eq!((ends.tokens.as_slice(), ends.reason()), (&[1][..], FinishReason::EndOfText));
    let goes_on = generate(&client, biased(&[(1, 1000.0)])).await.unwrap();
    assert_eq!((goes_on.tokens.as_slice(), goes_on.reason()), (&[1; 12][..], FinishReason::MaxTokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_leave_one_token_are_greedy() {
    let (_daemon, client) = tiny().await;
    let expected = generate(&client, greedy(&[2, 9, 30], 30)).await.unwrap().tokens;
    let one = Sampling { temperature: Some(2.0), seed: Some(1), ..Sampling::default() };
    for sampling in [
        Sampling { top_k: Some(1), ..one.clone() },
        Sampling { top_p: Some(1e-6), ..one.clone() },
        Sampling { min_p: Some(1.0), ..one.clone() },
    ] {
        let request = GenerateRequest { sampling: Some(sampling.clone()), ..greedy(&[2, 9, 30], 30) };
        assert_eq!(generate(&client, request).await.unwrap().tokens, expected, "{sampling:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_those_that_score_gives() {
    let (_daemon, client) = tiny().await;
    let prompt = ids(30, 3);
    for (top, sampling) in [(0, None), (5, Some(1.3_f32)), (20, Some(0.0))] {
        let request = GenerateRequest {
            sampling: Some(Sampling { temperature: sampling, seed: Some(5), ..Sampling::default() }),
            top_logprobs: Some(top),
            ..greedy(&prompt, 40)
        };
        let answer = generate(&client, request).await.unwrap();
        let whole: Vec<u32> = prompt.iter().chain(&answer.tokens).copied().collect();
        let scored = score(&client, &whole).await.unwrap().logprobs;
        assert_eq!(scored.len(), whole.len() - 1);
        for (i, (entry, expected)) in answer.logprobs.iter().zip(&scored[prompt.len() - 1..]).enumerate() {
            let chosen = entry.chosen.unwrap();
            assert_eq!(chosen.token, answer.tokens[i]);
            assert!((chosen.logprob - expected).abs() < 1e-4, "token {i}: {} and {expected}", chosen.logprob);
            assert_eq!(entry.top.len(), top as usize);
            assert!(entry.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
            let most = entry.top.first().map_or(chosen.logprob, |best| best.logprob);
            assert!(chosen.logprob <= most);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_one_token_and_of_thousands() {
    let (_daemon, client) = tiny().await;
    let one = score(&client, &[5]).await.unwrap();
    assert_eq!((one.tokens.as_slice(), one.logprobs.len()), (&[5][..], 0));
    let tokens = ids(5_000, 4);
    let all = score(&client, &tokens).await.unwrap();
    assert_eq!((all.logprobs.len(), all.usage.unwrap().prompt_tokens), (4_999, 5_000));
    assert!(all.logprobs.iter().all(|logprob| logprob.is_finite() && *logprob <= 0.0));
    // The same prefix has the same scores, however long what follows.
    let part = score(&client, &tokens[..100]).await.unwrap();
    assert!(part.logprobs.iter().zip(&all.logprobs).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_reach_the_whole_answer() {
    let (_daemon, client) = tiny().await;
    let request = GenerateRequest {
        sampling: Some(Sampling { temperature: Some(0.0), presence_penalty: Some(100.0), ..Sampling::default() }),
        ..greedy(&[2, 9], 60)
    };
    let mut tokens = generate(&client, request).await.unwrap().tokens;
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 60, "no token twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_strings_end_the_text_before_them() {
    let daemon = Setup::new(&world::demo()).start();
    let client = connect(&daemon).await;
    let text = |stop: &[&str]| GenerateRequest {
        prompt: Some(Prompt::Text("Please set the bedroom fan to 40".into())),
        stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
        // Much text, whatever the model has learned: no special tokens, and far from the most probable ones.
        sampling: Some(Sampling {
            temperature: Some(3.0),
            seed: Some(4),
            logit_bias: (0..16).map(|special| (special, -1000.0)).collect(),
            ..Sampling::default()
        }),
        ..greedy(&[], 40)
    };
    let whole = generate(&client, text(&[])).await.unwrap();
    let ends: Vec<usize> = whole.text.char_indices().map(|(at, _)| at).collect();
    assert!(ends.len() > 12, "{:?}", whole.text);
    // Every piece of six characters lies across the borders of some tokens.
    for window in ends.windows(7).step_by(3) {
        let stop = &whole.text[window[0]..window[6]];
        let cut = generate(&client, text(&["never that", stop])).await.unwrap();
        let expected = whole.text.find(stop).unwrap();
        assert_eq!(cut.text, whole.text[..expected], "{stop:?}");
        assert_eq!((cut.reason(), cut.finish.stop.as_str()), (FinishReason::Stop, stop));
        assert_eq!(cut.tokens, whole.tokens[..cut.tokens.len()]);
    }
    // What only looks like the beginning of a stop string is given back at the end.
    let tail = format!("{}☃", whole.text.chars().rev().take(3).collect::<Vec<_>>().iter().rev().collect::<String>());
    let kept = generate(&client, text(&[&tail])).await.unwrap();
    assert_eq!((&kept.text, kept.reason()), (&whole.text, FinishReason::MaxTokens));
}
