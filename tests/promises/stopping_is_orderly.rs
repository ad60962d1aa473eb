//! SIGTERM: what runs may finish, what waits is sent away, and the process ends with 0.

use std::time::Duration;

use recurve_proto::reason;
use recurve_proto::v1::FinishReason;
use recurve_tests::client::{begin, connect, greedy, told};
use recurve_tests::daemon::Setup;
use recurve_tests::world;
use rustix::process::Signal;
use tonic::Code;

const ENDLESS: u32 = 131_072;

fn slow() -> Setup {
    Setup::new(&world::slow()).set("engine.slots", 1).set("engine.threads", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn running_answers_finish_and_waiting_ones_are_sent_away() {
    let daemon = slow().set("shutdown.grace", 60).start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], 60)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = begin(&client, greedy(&[2], 5)).await.unwrap();
    daemon.terminate();
    let status = waiting.rest().await.unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, reason::SHUTTING_DOWN.into(), vec![]));
    let answer = running.rest().await.unwrap();
    assert_eq!((answer.tokens.len(), answer.reason()), (60, FinishReason::MaxTokens));
    let status = daemon.ended();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_connected_and_not_asked_yet_is_told_in_words() {
    let daemon = slow().set("shutdown.grace", 60).start();
    let (client, late) = (connect(&daemon).await, connect(&daemon).await);
    let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    running.until(1).await.unwrap();
    daemon.terminate();
    daemon.wait_for("stopping; a second signal ends the process at once");
    // Others are answered meanwhile, so it may take its time.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let status = begin(&late, greedy(&[2], 1)).await.map(|_| ()).unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, reason::SHUTTING_DOWN.into(), vec![]));
    drop(running);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_grace_period_answers_end_as_they_are() {
    for grace in [0, 1] {
        let daemon = slow().set("shutdown.grace", grace).start();
        let client = connect(&daemon).await;
        let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
        running.until(2).await.unwrap();
        daemon.terminate();
        let answer = running.rest().await.unwrap();
        assert_eq!(answer.reason(), FinishReason::Shutdown);
        assert_eq!(answer.finish.usage.unwrap().completion_tokens, answer.tokens.len() as u64);
        assert_eq!(daemon.ended().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_not_read_by_then_fails() {
    let daemon = slow().set("shutdown.grace", 0).start();
    let client = connect(&daemon).await;
    let prompt: Vec<u32> = (0..100_000).map(|i| 3 + i % 500).collect();
    let reading = begin(&client, greedy(&prompt, 1)).await.unwrap();
    daemon.terminate();
    let status = reading.rest().await.unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, reason::SHUTTING_DOWN.into(), vec![]));
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let daemon = slow().set("shutdown.grace", 3600).allow("second signal").start();
        let client = connect(&daemon).await;
        let mut running = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
        running.until(1).await.unwrap();
        daemon.terminate();
        daemon.wait_for("stopping; a second signal ends the process at once");
        daemon.signal(signal);
        assert_eq!(daemon.ended().code(), Some(code));
        assert!(running.rest().await.is_err(), "the stream breaks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_loads() {
    let daemon = slow().start_loading();
    daemon.terminate();
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_to_do_and_a_client_that_stays_connected() {
    let daemon = Setup::new(&world::tiny("f32")).start();
    let _client = connect(&daemon).await;
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_removed() {
    let daemon = Setup::new(&world::tiny("f32")).unix().start();
    let path = std::path::PathBuf::from(daemon.address.strip_prefix("unix:").unwrap());
    assert!(path.exists());
    daemon.terminate();
    daemon.wait_for("stopped");
    // The folder goes with the fixture: look before that.
    let begun = std::time::Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < recurve_tests::process::LIMIT, "the socket's file is left");
        std::thread::yield_now();
    }
    assert!(daemon.ended().success());
}
