//! Operators see what a node is and logs, change its settings, and take it out of service without a lost answer.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use recurve_proto::reason;
use recurve_proto::v1::FinishReason;
use recurve_tests::client::{begin, chat, connect, generate, greedy, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::{ask, deploy, health};
use recurve_tests::process::{Ended, agent_cli, run, until, wait};
use recurve_tests::world;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

/// What a command printed, an object on each line.
fn objects(ended: Ended) -> Vec<Value> {
    ended.success().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The messages that the daemon logged, by this selection.
fn logged(daemon: &Daemon, options: &[&str]) -> Vec<Value> {
    objects(ask(daemon, &[&["logs", "--format", "json", "--last", "0"], options].concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_what_it_is_and_what_it_logged() {
    let daemon = Setup::new(&world::demo()).unix().start();
    let node = ask(&daemon, &["node", "describe", "--format", "json"]).json();
    assert_eq!((&node["serving"], &node["draining"]), (&true.into(), &false.into()), "{node}");
    assert!(node["cores"].as_u64() > Some(0) && node["memory"].as_u64() > Some(0), "{node}");
    assert!(node["settings"]["log.level"].as_str().unwrap().starts_with("info"), "{node}");
    let page = ask(&daemon, &["node", "describe"]).success();
    for words in ["serving", "model", "setting log.level", node["host"].as_str().unwrap()] {
        assert!(page.contains(words), "{page}");
    }

    generate(&connect(&daemon).await, chat("When does the library close?")).await.unwrap();
    let request = daemon.wait_for_outcome("end_of_text");
    let id = request["request"].as_str().unwrap();
    let lines = logged(&daemon, &["--request", id]);
    assert!(
        lines.iter().any(|line| line["message"] == "request" && line["fields"]["outcome"] == "end_of_text"),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line["fields"]["request"] == id), "{lines:?}");
    let found = logged(&daemon, &["--grep", id]);
    assert_eq!(found.len(), lines.len());
    assert_eq!(logged(&daemon, &["--level", "error"]), Vec::<Value>::new());
    let text = ask(&daemon, &["logs", "-n", "1", "--grep", id]).success();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("INFO") && text.contains(&format!("request={id}")), "{text}");
}

#[test]
fn settings_change_while_a_node_runs_all_or_none() {
    let daemon = Setup::new(&world::tiny("f32")).unix().start();
    let text = ask(&daemon, &["node", "configure", "log.level=debug"]).success();
    assert!(
        text.starts_with("log.level: info")
            && text.contains("→ debug\n")
            && text.contains("until recurved is started again"),
        "{text}"
    );
    // Looking at a node is told at DEBUG.
    let methods = || logged(&daemon, &["--level", "debug", "--grep", "Describe"]);
    assert!(methods().is_empty());
    ask(&daemon, &["node", "describe"]).success();
    assert_eq!(methods().len(), 1);

    let refused = ask(&daemon, &["node", "configure", "log.level=info", "engine.slots=3"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("engine.slots"), "{refused:?}");
    let node = ask(&daemon, &["node", "describe", "--format", "json"]).json();
    assert_eq!(node["settings"]["log.level"], "debug");
    let back = ask(&daemon, &["node", "configure", "log.level=info", "--format", "json"]).json();
    let changed = serde_json::json!([{"key": "log.level", "before": "debug", "after": "info"}]);
    assert_eq!(back["changed"], changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_what_runs_and_takes_nothing_new() {
    let daemon = Setup::new(&world::slow()).set("engine.slots", 1).set("engine.threads", 1).unix().start();
    let client = connect(&daemon).await;
    let mut running = begin(&client, greedy(&[2], 1500)).await.unwrap();
    running.until(1).await.unwrap();
    let mut drain = node_command(&daemon, &["drain"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut steps = BufReader::new(drain.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&steps.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["draining"], &first["active"]), (&true.into(), &1.into()), "{first}");

    let refused = generate(&client, greedy(&[2], 1)).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, reason::DRAINING.into(), vec![]));
    assert_eq!(health(&daemon).await, ServingStatus::NotServing);
    let asked = ask(&daemon, &["generate", "--tokens", "2", "--max-tokens", "1"]);
    assert!(asked.code == Some(3) && asked.stderr.contains("agent-cli node resume"), "{asked:?}");
    let row = ask(&daemon, &["top", "--once", "--every", "100ms", "--format", "json"]).json();
    assert_eq!((&row["state"], &row["active_rows"]), (&"draining".into(), &1.into()), "{row}");

    let answer = running.rest().await.unwrap();
    assert_eq!((answer.tokens.len(), answer.reason()), (1500, FinishReason::MaxTokens));
    let last: Value = serde_json::from_str(&steps.last().unwrap().unwrap()).unwrap();
    assert_eq!((&last["draining"], &last["active"], &last["waiting"]), (&true.into(), &0.into(), &0.into()), "{last}");
    assert!(wait(&mut drain).success());
    let row = ask(&daemon, &["top", "--once", "--every", "100ms", "--format", "json"]).json();
    assert_eq!(row["state"], "drained");

    ask(&daemon, &["node", "resume"]).success();
    generate(&client, greedy(&[2], 1)).await.unwrap();
    assert_eq!(health(&daemon).await, ServingStatus::Serving);
}

fn node_command(daemon: &Daemon, action: &[&str]) -> Command {
    let mut command = agent_cli(&["node"]);
    command.args(action).args(["--format", "json", "--on", &daemon.address]).stdin(Stdio::null());
    command
}

#[test]
fn a_table_of_devices_is_printed_once() {
    let daemon = Setup::new(&world::tiny("f32")).unix().start();
    ask(&daemon, &["generate", "--tokens", "2", "--max-tokens", "5", "--ignore-eos"]).success();
    let row = ask(&daemon, &["top", "--once", "--every", "100ms", "--format", "json"]).json();
    assert_eq!((&row["state"], &row["model"]), (&"serving".into(), &"tiny-f32".into()), "{row}");
    assert_eq!((&row["requests"], &row["errors"], &row["error"]), (&1.into(), &0.into(), &Value::Null), "{row}");
    assert!(row["time_to_first_token_p50_ms"].as_f64() > Some(0.0), "{row}");
    let table = ask(&daemon, &["top", "--once", "--every", "100ms"]).success();
    assert!(table.contains("tok/s") && table.contains("tiny-f32"), "{table}");

    // Who comes over plain TCP has not said who they are.
    let open = Setup::new(&world::tiny("f32")).start();
    let refused = ask(&open, &["top", "--once"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("only operators"), "{refused:?}");

    // A screen needs a terminal, and who has none is told what to do.
    let refused = ask(&daemon, &["top"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("top --once"), "{refused:?}");
    let address = daemon.address.clone();
    assert!(daemon.stop().success());
    let gone = run(agent_cli(&["top", "--once"]).args(["--on", &address]));
    assert!(gone.code == Some(3) && gone.stdout.is_empty(), "{gone:?}");
}

#[test]
fn who_changed_the_models_is_told() {
    let state = tempfile::tempdir().unwrap();
    let daemon = Setup::managed(state.path()).set("probation.seconds", 0).start();
    let row = ask(&daemon, &["top", "--once", "--every", "100ms", "--format", "json"]).json();
    assert_eq!(row["state"], "no_model");
    deploy(&daemon, &world::tiny("f32"));
    // Its probation ends by itself, after the deployment did.
    let audit = || objects(ask(&daemon, &["node", "audit", "--format", "json"]));
    until(|| audit().iter().any(|line| line["what"] == "confirmed"));
    let lines = audit();
    let last = lines.last().unwrap().clone();
    assert!(lines.iter().any(|line| line["result"] == "done"), "{lines:?}");
    let number = last["number"].as_u64().unwrap().to_string();
    assert_eq!(objects(ask(&daemon, &["node", "audit", "--after", &number, "--format", "json"])), Vec::<Value>::new());
    let text = ask(&daemon, &["node", "audit"]).success();
    assert_eq!(text.lines().count(), lines.len(), "{text}");
    // Without a folder for models there is nothing to tell.
    let fixed = Setup::new(&world::tiny("f32")).unix().start();
    let refused = ask(&fixed, &["node", "audit"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("leave out `bundle`"), "{refused:?}");
}

#[test]
fn lines_are_followed_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("recurved.sock").display());
    let start = || Setup::new(&world::tiny("f32")).listen(&[&address]).start();
    let daemon = start();
    let mut command = agent_cli(&["logs", "--follow", "--format", "json", "--on", &address]);
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = piped.spawn().unwrap();
    let mut asides = BufReader::new(follower.stderr.take().unwrap()).lines();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut until_ready = || loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["message"] == "ready" {
            break line["number"].as_u64().unwrap();
        }
    };
    let before = until_ready();
    assert!(daemon.stop().success());
    assert!(asides.next().unwrap().unwrap().contains("waiting for it"));
    let again = start();
    assert!(asides.next().unwrap().unwrap().contains("started again"));
    assert_eq!(until_ready(), before, "lines are counted anew");
    follower.kill().unwrap();
    wait(&mut follower);
    until(|| again.has_logged("ready"));
}

#[test]
fn following_at_debug_makes_no_lines_of_its_own() {
    let daemon = Setup::new(&world::tiny("int8")).unix().set("log.level", "debug").start();
    let mut follower = agent_cli(&["logs", "--follow", "--on", &daemon.address]);
    let mut follower = follower.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    follower.kill().unwrap();
    let lines = std::io::read_to_string(follower.stdout.take().unwrap()).unwrap().lines().count();
    follower.wait().unwrap();
    assert!((1..200).contains(&lines), "{lines} lines");
}
