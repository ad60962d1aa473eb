//! A client that goes away frees its place, wherever its request is; one that reads slowly holds up nobody else.

use recurve_tests::client::{begin, connect, connect_narrow, generate, greedy};
use recurve_tests::daemon::Setup;
use recurve_tests::world;

/// Far more than is generated before a test is over.
const ENDLESS: u32 = 131_072;

fn one_slot() -> Setup {
    Setup::new(&world::slow()).set("engine.slots", 1).set("engine.threads", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_generates() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(3).await.unwrap();
    let waiting = begin(&client, greedy(&[2, 3], 4)).await.unwrap();
    drop(running);
    assert_eq!(waiting.rest().await.unwrap().tokens.len(), 4);
    let line = daemon.wait_for_outcome("cancelled");
    assert!(line["completion_tokens"].as_u64() >= Some(3), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_prompt_is_read() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let prompt: Vec<u32> = (0..100_000).map(|i| 3 + i % 500).collect();
    let reading = begin(&client, greedy(&prompt, 1)).await.unwrap();
    let waiting = begin(&client, greedy(&[2, 3], 4)).await.unwrap();
    drop(reading);
    assert_eq!(waiting.rest().await.unwrap().tokens.len(), 4);
    assert_eq!(daemon.wait_for_outcome("cancelled")["completion_tokens"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_waits() {
    let daemon = one_slot().set("engine.queue", 1).start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    // The queue has one place: that the second request gets it proves that the first has left it.
    let first = begin(&client, greedy(&[2, 3], 4)).await.unwrap();
    drop(first);
    daemon.wait_for_outcome("cancelled");
    let second = begin(&client, greedy(&[2, 3], 4)).await.unwrap();
    drop(running);
    assert_eq!(second.rest().await.unwrap().tokens.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_whole_connection_is_gone() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let other = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = begin(&other, greedy(&[2, 3], 4)).await.unwrap();
    drop((running, client));
    assert_eq!(waiting.rest().await.unwrap().tokens.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody_and_loses_nothing() {
    let daemon = Setup::new(&world::tiny("f32")).set("engine.slots", 2).set("engine.threads", 1).start();
    let (slow, quick) = (connect_narrow(&daemon).await, connect(&daemon).await);
    // More than fits into the buffers on the way: windows of HTTP/2, the daemon's own queue of events.
    let long = recurve_proto::v1::GenerateRequest { top_logprobs: Some(20), ..greedy(&[2, 5], 6_000) };
    let expected = generate(&quick, long.clone()).await.unwrap();
    let mut unread = begin(&slow, long).await.unwrap();
    unread.until(1).await.unwrap();
    for _ in 0..8 {
        assert_eq!(generate(&quick, greedy(&[2, 5], 300)).await.unwrap().tokens, expected.tokens[..300]);
    }
    let whole = |line: &serde_json::Value| line["completion_tokens"] == 6_000;
    assert_eq!(daemon.requests().iter().filter(|line| whole(line)).count(), 1, "what is not read is held back");
    let answer = unread.rest().await.unwrap();
    assert_eq!((answer.tokens.len(), answer.logprobs.len()), (6_000, 6_000));
    assert!(answer.tokens == expected.tokens, "every token, in order");
    assert!(daemon.stop().success());
}
