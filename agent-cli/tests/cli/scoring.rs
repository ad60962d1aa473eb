//! `score`, `tokenize`, `detokenize` and `completions`.

use serde_json::json;

use crate::fake::Fake;
use crate::program::{run, run_with};

#[test]
fn scores_are_one_less_than_tokens() {
    let fake = Fake::start();
    let json = run(&["score", "--on", &fake.on, "--format", "json", "a", "big", "fan"]).json();
    assert_eq!(json["tokens"], json!([2, 1, 3, 3]));
    assert_eq!(json["logprobs"], json!([-0.25, -0.25, -0.25]));
    assert_eq!(json["total_logprob"], json!(-0.75));
    assert!((json["perplexity"].as_f64().unwrap() - 0.25_f64.exp()).abs() < 1e-9);

    let json = run(&["score", "--on", &fake.on, "--format", "json", "--tokens", "5"]).json();
    assert_eq!((&json["tokens"], &json["logprobs"]), (&json!([5]), &json!([])));
    assert_eq!((&json["total_logprob"], &json["perplexity"]), (&json!(0.0), &json!(null)));
}

#[test]
fn scores_of_text_and_of_ids_are_tables_with_pieces() {
    let fake = Fake::start();
    for (args, piece) in [(["big"].as_slice(), "big"), (&["--tokens", "2,3"], "w3")] {
        let mut all = vec!["score", "--on", &fake.on];
        all.extend(args);
        let ran = run(&all);
        let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["token", "piece", "logprob"]);
        assert_eq!(rows[1], ["2", "<bos>"]);
        assert_eq!(rows[2], ["3", piece, "-0.2500"]);
        assert_eq!(rows[3], ["total", "-0.2500,", "perplexity", "1.284"]);
    }
}

#[test]
fn tokens_go_both_ways() {
    let fake = Fake::start();
    let ran = run(&["tokenize", "--on", &fake.on, "a", "big", "fan"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "2,1,3,3\n"));
    let back = run_with(&["detokenize", "--on", &fake.on, "-"], ran.out.as_bytes());
    assert_eq!((back.code, back.out.as_str()), (Some(0), "w1 w3 w3\n"));
    let kept = run(&["detokenize", "--on", &fake.on, "--keep-special", "--format", "json", "2,1"]);
    assert_eq!(kept.json(), json!({"text": "<bos> w1"}));
    let json = run(&["tokenize", "--on", &fake.on, "--no-special", "--format", "json", "a"]).json();
    assert_eq!(json, json!({"tokens": [1], "pieces": ["a"]}));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(&["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("--max-tokens") || ran.out.contains("max-tokens"), "{shell}");
    }
}
