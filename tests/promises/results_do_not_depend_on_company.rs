//! A request gets the result that it would have alone, whoever shares the batch: with our kernels.

use recurve_proto::v1::GenerateRequest;
use recurve_proto::v1::generate_request::Prompt;
use recurve_tests::client::{Answer, Client, chat, connect, generate, greedy, seeded};
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

/// The same requests one after the other and then together, in the order given and in reverse, twice as many as there are
/// slots: every token and every bit of its log-probability is the same.
async fn check(setup: Setup, requests: Vec<GenerateRequest>) {
    let daemon = setup.set("engine.slots", 8).set("engine.threads", 2).set("engine.kernels", "recurve").start();
    let client = connect(&daemon).await;
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(generate(&client, request.clone()).await.unwrap());
    }
    let together = all_at_once(&client, &requests).await;
    let backwards: Vec<_> = requests.iter().rev().cloned().collect();
    let mut reversed = all_at_once(&client, &backwards).await;
    reversed.reverse();
    let bits = |answer: &Answer| answer.chosen().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for (i, alone) in alone.iter().enumerate() {
        assert!(!alone.tokens.is_empty());
        for company in [&together[i], &reversed[i]] {
            assert_eq!(company.tokens, alone.tokens, "request {i}");
            assert_eq!(bits(company), bits(alone), "request {i}");
            assert_eq!((company.reason(), &company.text), (alone.reason(), &alone.text), "request {i}");
        }
    }
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

/// Products of f32 weights are ONNX Runtime's, which sums in another order for more rows: the last bits may differ, so
/// that only the tokens of requests without chance are compared.
#[tokio::test(flavor = "multi_thread")]
async fn in_f32_tokens_are_the_same() {
    let daemon = Setup::new(&world::tiny("f32")).set("engine.slots", 8).set("engine.kernels", "recurve").start();
    let client = connect(&daemon).await;
    let requests: Vec<_> = (0..16).map(|i| greedy(&world::ids(1 + (i as usize * 11) % 60, i), 20)).collect();
    let together = all_at_once(&client, &requests).await;
    for (request, together) in requests.into_iter().zip(together) {
        assert_eq!(generate(&client, request).await.unwrap().tokens, together.tokens);
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_int4() {
    check(Setup::new(&world::tiny("int4")), requests(16)).await;
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
    check(Setup::new(&world::demo()), mixed).await;
}
