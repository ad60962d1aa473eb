//! The bundles that tests serve, each made once by `agent-cli export` in a run of the tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use recurve_bundle::{Bundle, Digest};
use serde_json::Value;

use crate::process::{agent_cli, build_dir, run};
use crate::reference::repository;

/// Small, f32, without a tokenizer: a step takes a fraction of a millisecond. Vocabulary 96, window 12, chunks of 8.
const TINY: &str = r#"{"model_type": "recurrent_gemma", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 384,
    "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_window_size": 12,
    "bos_token_id": 2, "eos_token_id": 1}"#;

/// Large enough that steps take milliseconds: what a running request does can be watched. Vocabulary 512.
const SLOW: &str = r#"{"model_type": "recurrent_gemma", "vocab_size": 512, "hidden_size": 1024,
    "intermediate_size": 6144, "num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 1,
    "attention_window_size": 64, "bos_token_id": 2, "eos_token_id": 1}"#;

/// Vocabulary of the tiny model.
pub const TINY_VOCAB: u32 = 96;
/// Most tokens in a step of the tiny model.
pub const TINY_CHUNK: usize = 8;
/// Tokens that the tiny model's attention looks back.
pub const TINY_WINDOW: usize = 12;

/// The configuration of the tiny model.
pub fn tiny_config() -> &'static str {
    TINY
}

/// The tiny random model with weights in this format.
pub fn tiny(weights: &str) -> PathBuf {
    random(&format!("tiny-{weights}"), TINY, &["--weights", weights, "--max-chunk", "8", "--seed", "7"])
}

/// The slow random model.
pub fn slow() -> PathBuf {
    random("slow", SLOW, &["--weights", "int4", "--max-chunk", "16"])
}

/// The checkpoint of the model in the box.
pub fn demo_checkpoint() -> PathBuf {
    repository().join("deploy/demo-model")
}

/// The model in the box, int8.
pub fn demo() -> PathBuf {
    made("demo", |out| export(&[path(&demo_checkpoint()), "--weights", "int8", "--out", path(out)]))
}

/// A reference checkpoint in f32.
pub fn reference(name: &str) -> PathBuf {
    let checkpoint = repository().join("tests/reference/data").join(name);
    made(name, |out| export(&[path(&checkpoint), "--weights", "f32", "--no-tokenizer", "--out", path(out)]))
}

/// `count` token ids of the tiny model, different for each seed.
pub fn ids(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 8) % (TINY_VOCAB - 3)
    };
    (0..count).map(next).collect()
}

/// A copy of a bundle at `copy` in which one file has other bytes, and every digest and size is right.
pub fn forged(bundle: &Path, filepath: &str, copy: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let opened = Bundle::open(bundle).expect("a bundle");
    let manifest = opened.manifest();
    let blobs = copy.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let (changed, config) = (opened.file(filepath).expect("a file of the bundle").digest, manifest.config.digest);
    for blob in manifest.layers.iter().map(|layer| layer.digest).filter(|digest| *digest != changed) {
        std::fs::copy(opened.blob(&blob), blobs.join(blob.hex())).expect("a blob");
    }
    let read = |digest: &Digest| std::fs::read(opened.blob(digest)).expect("a blob");
    let write = |old: Digest, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).expect("a blob");
        (old, digest, bytes.len())
    };
    let redirected = |bytes: &[u8], written: &[(Digest, Digest, usize)]| {
        let mut document = serde_json::from_slice(bytes).expect("JSON");
        written.iter().for_each(|(old, new, size)| redirect(&mut document, old, new, *size));
        serde_json::to_vec(&document).expect("JSON")
    };
    let mut bytes = read(&changed);
    change(&mut bytes);
    let mut written = vec![write(changed, &bytes)];
    for document in [config, *opened.digest()] {
        written.push(write(document, &redirected(&read(&document), &written)));
    }
    let index = std::fs::read(bundle.join("index.json")).expect("an index");
    std::fs::write(copy.join("index.json"), redirected(&index, &written)).expect("a file");
    std::fs::copy(bundle.join("oci-layout"), copy.join("oci-layout")).expect("a file");
}

/// Lets every descriptor of the blob `old` name the blob `new`.
fn redirect(document: &mut Value, old: &Digest, new: &Digest, size: usize) {
    match document {
        Value::Object(entries) => {
            if entries.get("digest").and_then(Value::as_str) == Some(&old.to_string()) {
                entries.insert("digest".to_owned(), new.to_string().into());
                entries.insert("size".to_owned(), size.into());
            }
            entries.values_mut().for_each(|value| redirect(value, old, new, size));
        }
        Value::Array(members) => members.iter_mut().for_each(|value| redirect(value, old, new, size)),
        Value::String(text) if *text == old.to_string() => *text = new.to_string(),
        _ => {}
    }
}

/// A copy of a bundle that no device's golden test passes.
pub fn failing(bundle: &Path, copy: &Path) {
    // The logits are at the end: they change their sign.
    forged(bundle, "golden.safetensors", copy, |bytes| {
        bytes.iter_mut().rev().step_by(4).take(TINY_VOCAB as usize).for_each(|byte| *byte ^= 0x80);
    });
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A folder for this run; those of runs that are over are removed.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = build_dir().join("promises-data");
        std::fs::create_dir_all(&all).expect("a folder for bundles");
        for entry in std::fs::read_dir(&all).expect("a folder for bundles") {
            let old = entry.expect("an entry").path();
            let pid = old.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !Path::new("/proc").join(pid).exists() {
                let _ = std::fs::remove_dir_all(&old);
            }
        }
        let own = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&own).expect("a folder for bundles");
        own
    });
    &FOLDER
}

fn random(name: &str, config: &str, options: &[&str]) -> PathBuf {
    made(name, |out| {
        let file = out.with_extension("json");
        std::fs::write(&file, config).expect("a configuration");
        let mut args = vec!["--random-weights", path(&file), "--name", name, "--out", path(out)];
        args.extend(options);
        export(&args);
    })
}

fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    type Bundles = Mutex<HashMap<String, Arc<OnceLock<PathBuf>>>>;
    static BUNDLES: LazyLock<Bundles> = LazyLock::new(Bundles::default);
    let cell = Arc::clone(BUNDLES.lock().expect("the bundles").entry(name.to_owned()).or_default());
    cell.get_or_init(|| {
        let out = folder().join(name);
        make(&out);
        out
    })
    .clone()
}

fn export(args: &[&str]) {
    run(agent_cli(&["export"]).args(args)).success();
}
