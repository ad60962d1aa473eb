//! `export` and `bundle`: a bundle is made, shown and verified, and damage has its exit code.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::program::{interrupt, program, run};

/// Writes a configuration with this many tokens in its vocabulary, and returns its path.
pub(crate) fn config(dir: &Path, vocab_size: usize) -> String {
    let config = json!({
        "model_type": "recurrent_gemma", "vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 384,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "lru_width": 64,
        "attention_window_size": 16, "conv1d_width": 4, "block_types": ["recurrent", "recurrent", "attention"],
        "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        "bos_token_id": 2, "eos_token_id": 1,
    });
    let path = dir.join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_bundle_is_made_shown_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 96);
    let out = dir.path().join("tiny");
    let out = out.to_str().unwrap();
    let export = ["export", "--random-weights", &config, "--out", out, "--name", "tiny"];

    let made = run(&export);
    assert_eq!((made.code, made.err.as_str()), (Some(0), ""), "{made:?}");
    assert!(made.out.contains(&format!("recurved --bundle {out}")), "{made:?}");
    let again = run(&export);
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("--overwrite"), "{again:?}");
    let replaced = run(&[&export[..], &["--overwrite", "--format", "json"]].concat()).json();

    let shown = run(&["bundle", "inspect", out, "--format", "json"]).json();
    assert_eq!(shown["digest"], replaced["digest"]);
    assert_eq!(shown["model"]["name"], "tiny");
    assert_eq!(shown["state_bytes"], replaced["state_bytes"]);
    assert!(run(&["bundle", "inspect", out]).out.contains("weights/layer-02.bin"));
    let verified = run(&["bundle", "verify", out, "--format", "json"]).json();
    assert_eq!(verified["bytes"], replaced["bytes"]);
    assert!(run(&["bundle", "verify", out]).out.starts_with("OK: tiny is whole"));
}

#[test]
fn damage_and_absence_have_their_own_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 96);
    let out = dir.path().join("tiny");
    assert_eq!(run(&["export", "--random-weights", &config, "--out", out.to_str().unwrap()]).code, Some(0));
    let blobs = out.join("blobs/sha256");
    let largest = fs::read_dir(blobs).unwrap().map(Result::unwrap).max_by_key(|e| e.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(largest.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(largest.path(), bytes).unwrap();

    let verified = run(&["bundle", "verify", out.to_str().unwrap()]);
    assert_eq!((verified.code, verified.out.as_str()), (Some(7), ""), "{verified:?}");
    assert!(verified.err.contains("weights/") && verified.err.contains("holds other bytes"), "{verified:?}");
    let absent = run(&["bundle", "inspect", "/nowhere/at/all"]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.err.contains("make one with `agent-cli export`"), "{absent:?}");
    let empty = dir.path().join("hf");
    fs::create_dir(&empty).unwrap();
    let export = run(&["export", empty.to_str().unwrap(), "--out", dir.path().join("b").to_str().unwrap()]);
    assert_eq!(export.code, Some(7), "{export:?}");
    assert!(export.err.contains("config.json"), "{export:?}");
}

#[test]
fn an_export_that_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Large enough to be under way for seconds.
    let config = config(dir.path(), 4_000_000);
    let out = dir.path().join("large");
    let export = program(&["export", "--random-weights", &config, "--out", out.to_str().unwrap()]).spawn().unwrap();
    let begun = Instant::now();
    while names(dir.path()).len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the export did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&export);
    let ended = export.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    assert_eq!(names(dir.path()), ["config.json"]);
}

#[test]
fn a_pull_that_fetched_nothing_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    let ran = run(&["pull", "oci://127.0.0.1:1/models/none:1", "--out", out.to_str().unwrap()]);
    assert!(ran.code != Some(0) && ran.err.contains("127.0.0.1:1"), "{ran:?}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}
