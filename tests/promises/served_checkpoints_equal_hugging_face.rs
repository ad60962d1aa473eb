//! A checkpoint that was exported and is served scores and continues as Hugging Face's own implementation does.

use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{agent_cli, run};
use recurve_tests::reference::{self, Reference};
use recurve_tests::world;

/// Largest difference of a log-probability: that of two logits and of the sum over the vocabulary.
const TOLERANCE: f64 = 3e-4;

fn check(name: &str, setup: fn(Setup) -> Setup) {
    let reference = reference::all().into_iter().find(|reference| reference.name() == name).expect(name);
    let daemon = setup(Setup::new(&world::reference(name))).start();
    scores(&daemon, &reference);
    continues(&daemon, &reference);
    assert!(daemon.stop().success());
}

fn scores(daemon: &Daemon, reference: &Reference) {
    let tokens = list(&reference.tokens);
    let scored =
        run(&mut agent_cli(&["score", "--on", &daemon.address, "--tokens", &tokens, "--format", "json"])).json();
    let logprobs: Vec<f64> =
        scored["logprobs"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(scored["tokens"], serde_json::json!(reference.tokens));
    assert_eq!(logprobs.len(), reference.tokens.len() - 1);
    let rows = reference.logits.chunks_exact(reference.config.vocab_size);
    let mut worst = 0.0_f64;
    for ((logits, &next), logprob) in rows.zip(&reference.tokens[1..]).zip(logprobs) {
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let difference = (f64::from(logits[next as usize]) - sum.ln() - logprob).abs();
        assert!(difference <= TOLERANCE, "{}: {difference:e}", reference.name());
        worst = worst.max(difference);
    }
    println!("{}: log-probabilities within {worst:.1e}", reference.name());
}

fn continues(daemon: &Daemon, reference: &Reference) {
    let (prompt, count) = (list(&reference.prompt), reference.continuation.len().to_string());
    let mut command = agent_cli(&["generate", "--on", &daemon.address, "--tokens", &prompt, "--max-tokens", &count]);
    let made = run(command.args(["--temperature", "0", "--ignore-eos", "--format", "json"])).json();
    assert_eq!(made["tokens"], serde_json::json!(reference.continuation), "{}", reference.name());
    assert_eq!(made["usage"]["completion_tokens"], reference.continuation.len());
}

fn list(tokens: &[u32]) -> String {
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn in_one_file() {
    check("rra-mqa", |setup| setup);
}

#[test]
fn in_several_files_of_mixed_types_over_a_unix_socket() {
    check("sharded-mixed", Setup::unix);
}
