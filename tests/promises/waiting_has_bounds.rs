//! The queue is bounded and fair, deadlines are kept, and a long prompt does not stop those who are being answered.

use std::time::Duration;

use recurve_proto::reason;
use recurve_proto::v1::{GenerateRequest, Priority};
use recurve_tests::client::{Client, Stream, begin, by, connect, generate, greedy, soon, told};
use recurve_tests::daemon::Setup;
use recurve_tests::world;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const ENDLESS: u32 = 131_072;

fn one_slot() -> Setup {
    Setup::new(&world::slow()).set("engine.slots", 1).set("engine.threads", 1)
}

async fn begin_by(client: &Client, request: GenerateRequest, deadline: Duration) -> Result<Stream, Status> {
    soon(client.clone().generate(by(request, deadline))).await.map(|response| Stream::new(response.into_inner()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_running_answer() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let running = begin_by(&client, greedy(&[2], ENDLESS), Duration::from_millis(500)).await.unwrap();
    let status = running.rest().await.unwrap_err();
    assert_eq!(told(&status), (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED.into(), vec![]));
    // And its slot is free.
    assert_eq!(generate(&client, greedy(&[2], 3)).await.unwrap().tokens.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_counts_in_the_queue() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = begin_by(&client, greedy(&[2], 1), Duration::from_millis(50)).await.unwrap();
    let status = waiting.rest().await.unwrap_err();
    assert_eq!(told(&status), (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED.into(), vec![]));
    running.until(10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_before_its_turn_tells_how_long_it_waited() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let ms = |line: &serde_json::Value, field: &str| line[field].as_f64().unwrap();
    let waited = |line: &serde_json::Value, at_least: f64| {
        assert!(ms(line, "queue_ms") >= at_least && ms(line, "queue_ms") <= ms(line, "total_ms"), "{line}");
        assert_eq!(ms(line, "first_token_ms"), 0.0, "{line}");
    };
    // Its deadline passes.
    let waiting = begin_by(&client, greedy(&[2], 1), Duration::from_millis(300)).await.unwrap();
    assert_eq!(waiting.rest().await.unwrap_err().code(), Code::DeadlineExceeded);
    waited(&daemon.wait_for_outcome("DEADLINE_EXCEEDED"), 250.0);
    // Its caller goes away.
    let waiting = begin(&client, greedy(&[2], 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(waiting);
    waited(&daemon.wait_for_outcome("cancelled"), 250.0);
    // The daemon stops, and what runs would not leave it a turn.
    let waiting = begin(&client, greedy(&[2], 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.terminate();
    assert_eq!(waiting.rest().await.unwrap_err().code(), Code::Unavailable);
    waited(&daemon.wait_for_outcome("UNAVAILABLE"), 250.0);
    drop(running);
    assert!(daemon.ended().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_it_is_read_waited_only_until_then() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let prompt: Vec<u32> = (0..100_000).map(|i| 3 + i % 500).collect();
    let reading = begin_by(&client, greedy(&prompt, 1), Duration::from_millis(600)).await.unwrap();
    assert_eq!(reading.rest().await.unwrap_err().code(), Code::DeadlineExceeded);
    let line = daemon.wait_for_outcome("DEADLINE_EXCEEDED");
    let (queue, total) = (line["queue_ms"].as_f64().unwrap(), line["total_ms"].as_f64().unwrap());
    assert!(queue > 0.0 && queue < total / 2.0, "{line}");
    assert_eq!(line["prompt_tokens"], prompt.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let daemon = one_slot().set("engine.queue", 2).start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = [begin(&client, greedy(&[2], 2)).await.unwrap(), begin(&client, greedy(&[2], 2)).await.unwrap()];
    let status = begin(&client, greedy(&[2], 2)).await.unwrap_err();
    assert_eq!(told(&status), (Code::ResourceExhausted, reason::QUEUE_FULL.into(), vec![]));
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(retry > Duration::ZERO && status.message().contains("2 requests wait"), "{status:?}");
    drop(running);
    for waiting in waiting {
        assert_eq!(waiting.rest().await.unwrap().tokens.len(), 2);
    }
    assert_eq!(generate(&client, greedy(&[2], 2)).await.unwrap().tokens.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn interactive_requests_go_before_background_ones() {
    let daemon = one_slot().start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let patient = GenerateRequest { priority: Priority::Background.into(), ..greedy(&[2], ENDLESS) };
    let mut background = begin(&client, patient).await.unwrap();
    let interactive = begin(&client, greedy(&[2], 5)).await.unwrap();
    drop(running);
    // With one slot, the interactive one can only end before the endless one in the background has begun.
    assert_eq!(interactive.rest().await.unwrap().tokens.len(), 5);
    background.until(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn running_answers_go_on_while_a_long_prompt_is_read() {
    let daemon = Setup::new(&world::slow()).set("engine.slots", 2).set("engine.prefill_budget", 8).start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    let prompt: Vec<u32> = (0..600).map(|i| 3 + i % 500).collect();
    let mut long = begin(&client, greedy(&prompt, 2)).await.unwrap();
    let before = running.answer.tokens.len();
    let first = async {
        long.until(1).await.unwrap();
        long
    };
    tokio::pin!(first);
    let long = loop {
        tokio::select! {
            biased;
            long = &mut first => break long,
            more = running.next() => assert!(more.unwrap()),
        }
    };
    let between = running.answer.tokens.len() - before;
    // 600 tokens of prompt in pieces of 8, and a step of the others after each.
    println!("{between} tokens of the running answer while the prompt was read");
    assert!(between >= 30, "{between} tokens");
    assert_eq!(long.rest().await.unwrap().tokens.len(), 2);
}
