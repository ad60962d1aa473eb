//! One model takes another's place under load: what runs is finished or ends with a word, what waits is answered by the new one.

use recurve_proto::v1::{FinishReason, ScoreRequest, TokenIds, score_request};
use recurve_tests::client::{Answer, begin, connect, greedy};
use recurve_tests::daemon::Setup;
use recurve_tests::managed::{deploy, digest, served};
use recurve_tests::process::{agent_cli, run};
use recurve_tests::world::{self, path};

/// A stream that runs and one that waits, with a single row, while another model is deployed.
async fn a_switch_under_load(way: &str, grace: u32) -> [Answer; 2] {
    let state = tempfile::tempdir().unwrap();
    let (slow, int8) = (world::slow(), world::tiny("int8"));
    let daemon = Setup::managed(state.path())
        .set("engine.slots", 1)
        .set("shutdown.grace", grace)
        .set("deploy.switch", way)
        .start();
    deploy(&daemon, &slow);
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], 200)).await.unwrap();
    running.until(1).await.unwrap();
    let waiting = begin(&client, greedy(&[2], 5)).await.unwrap();
    let score = ScoreRequest {
        input: Some(score_request::Input::Tokens(TokenIds { ids: vec![2, 9, 30] })),
        ..Default::default()
    };
    let scored = tokio::spawn({
        let mut client = client.clone();
        async move { client.score(score).await.unwrap().into_inner().bundle }
    });
    tokio::task::spawn_blocking({
        let (address, int8) = (daemon.address.clone(), int8.clone());
        move || run(agent_cli(&["deploy", path(&int8)]).args(["--on", &address])).success()
    })
    .await
    .unwrap();
    assert_eq!(served(&daemon).await, digest(&int8));
    let (running, waiting) = (running.rest().await.unwrap(), waiting.rest().await.unwrap());
    assert_eq!((&running.finish.bundle, &waiting.finish.bundle), (&digest(&slow), &digest(&int8)));
    assert_eq!(scored.await.unwrap(), digest(&int8));
    assert!(daemon.stop().success());
    [running, waiting]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_finished_and_what_waits_is_answered_by_the_new_model() {
    for way in ["beside", "in_turn"] {
        let [running, waiting] = a_switch_under_load(way, 60).await;
        assert_eq!((running.tokens.len(), waiting.tokens.len()), (200, 5), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_for_too_long_ends_and_says_so() {
    for way in ["beside", "in_turn"] {
        let [running, waiting] = a_switch_under_load(way, 0).await;
        assert_eq!(running.finish.reason(), FinishReason::Shutdown, "{way}");
        assert!((1..200).contains(&running.tokens.len()), "{way}");
        assert_eq!(waiting.tokens.len(), 5, "{way}");
    }
}
