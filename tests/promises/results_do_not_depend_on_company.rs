//! A request gets the result that it would have alone, whoever shares the batch: with our kernels.

use recurve_proto::v1::GenerateRequest;
use recurve_proto::v1::generate_request::Prompt;
use recurve_tests::client::{Answer, Client, chat, connect, generate, seeded};
use recurve_tests::daemon::Setup;
use recurve_tests::world;

async fn all_at_once(client: &Client, requests: &[GenerateRequest]) -> Vec<Answer> {
    let running: Vec<_> = requests
        .iter()
        .map(|request| {
            let (client, request) = (client.clone(), request.clone());
            tokio::spawn(async move { generate(&client, request).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for task in running {
        answers.push(task.await.unwrap());
    }
    answers
}

/// The same requests one after the other and then together, in the order given and in reverse. `tolerance` is the most
/// that a log-probability may differ; an answer drawn from probabilities that differ by more than the last bit may go
/// another way, which is only allowed where `branches` says so.
async fn check(what: &str, setup: Setup, requests: Vec<GenerateRequest>, tolerance: f32, branches: bool) {
    let daemon = setup.set("engine.slots", 4).set("engine.kernels", "recurve").start();
    let client = connect(&daemon).await;
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(generate(&client, request.clone()).await.unwrap());
    }
    let together = all_at_once(&client, &requests).await;
    let backwards: Vec<_> = requests.iter().rev().cloned().collect();
    let mut reversed = all_at_once(&client, &backwards).await;
    reversed.reverse();
    let (mut worst, mut branched) = (0.0_f32, 0);
    for (i, alone) in alone.iter().enumerate() {
        assert!(!alone.tokens.is_empty());
        for company in [&together[i], &reversed[i]] {
            let same = company.tokens.iter().zip(&alone.tokens).take_while(|(a, b)| a == b).count();
            let differences = company.chosen().into_iter().zip(alone.chosen()).take(same).map(|(a, b)| (a - b).abs());
            worst = differences.fold(worst, f32::max);
            if branches && company.tokens != alone.tokens {
                branched += 1;
            } else {
                assert_eq!(company.tokens, alone.tokens, "{what}: request {i}");
                assert_eq!((company.reason(), &company.text), (alone.reason(), &alone.text), "{what}: request {i}");
            }
        }
    }
    let count = 2 * alone.len();
    println!("{what}: log-probabilities differ by at most {worst:e}, {branched} of {count} answers go another way");
    assert!(worst <= tolerance, "{what}: {worst:e}");
    assert!(daemon.stop().success());
}

/// Random requests of many lengths of prompt and answer.
fn requests(count: u32) -> Vec<GenerateRequest> {
    (0..count)
        .map(|i| {
            let prompt = world::ids(1 + (i as usize * 11) % 60, i);
            GenerateRequest { top_logprobs: Some(0), ..seeded(&prompt, 5 + (i * 17) % 50, u64::from(i)) }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_f32() {
    check("tiny, f32", Setup::new(&world::tiny("f32")).set("engine.threads", 1), requests(12), 1e-5, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_int4() {
    check("tiny, int4", Setup::new(&world::tiny("int4")).set("engine.threads", 1), requests(12), 0.0, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_int8_with_a_tokenizer() {
    let texts =
        ["Please set the bedroom fan to 40", "turn on the kitchen light", "Is it cold?", "close the blinds now"];
    let mut mixed: Vec<_> = (0..8)
        .map(|i| GenerateRequest {
            prompt: chat(texts[i % 4]).prompt,
            top_logprobs: Some(0),
            ..seeded(&[], 20 + 7 * i as u32, i as u64)
        })
        .collect();
    mixed.push(GenerateRequest { prompt: Some(Prompt::Text("a".repeat(700))), ..mixed[0].clone() });
    check("demo, int8", Setup::new(&world::demo()), mixed, 0.0, false).await;
}
