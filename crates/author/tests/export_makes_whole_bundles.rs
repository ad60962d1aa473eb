//! An export makes a bundle that opens, verifies and is the same every time, or leaves nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test file: helpers fail as the tests do")]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use recurve_author::{
    ExportError, ExportOptions, ExportRequest, Exported, Observer, PackError, Phase, Samples, Source, WeightFormat,
};
use recurve_bundle::{Bundle, Tolerance, file};
use recurve_model::{ModelConfig, RandomWeights, Rounded, Weights as _, reference, shapes};
use serde_json::{Value, json};

/// Remembers phases and adds up their progress.
#[derive(Default)]
struct Recorder(Mutex<Vec<(Phase, u64)>>);

impl Observer for Recorder {
    fn phase(&self, phase: Phase) {
        self.0.lock().unwrap().push((phase, 0));
    }

    fn advance(&self, amount: u64) {
        self.0.lock().unwrap().last_mut().unwrap().1 += amount;
    }
}

fn config() -> Value {
    json!({
        "model_type": "recurrent_gemma", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 192,
        "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "lru_width": 32,
        "attention_window_size": 8, "conv1d_width": 4, "block_types": ["recurrent", "recurrent", "attention"],
        "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        "bos_token_id": 2, "eos_token_id": 1,
    })
}

fn tokenizer(tokens: usize) -> Value {
    let vocab: serde_json::Map<String, Value> = (0..tokens).map(|id| (format!("t{id}"), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    })
}

/// A directory with a checkpoint `hf` in it, and room for bundles.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self { dir };
        fs::create_dir(world.path("hf")).unwrap();
        world.put("config.json", &config());
        world.put("tokenizer.json", &tokenizer(48));
        world.put(
            "tokenizer_config.json",
            &json!({"chat_template": [
                {"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ messages }}"},
            ]}),
        );
        world.put("generation_config.json", &json!({"do_sample": false, "top_k": 5, "eos_token_id": [7, 1]}));
        fs::write(world.path("hf/README.md"), "---\nlicense: x\n---\n# Mine\n").unwrap();
        let config = ModelConfig::read(&world.path("hf/config.json")).unwrap();
        let weights = RandomWeights::new(&config, 3);
        let tensors: Vec<_> = shapes::tensors(&config)
            .into_iter()
            .map(|tensor| {
                let values = weights.all(&tensor.name, tensor.len()).unwrap();
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (tensor, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(tensor, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, tensor.shape.clone(), bytes);
            (tensor.name.as_str(), view.unwrap())
        });
        fs::write(world.path("hf/model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, value: &Value) {
        fs::write(self.path("hf").join(name), value.to_string()).unwrap();
    }

    fn request(&self, out: &str, weights: WeightFormat) -> ExportRequest {
        ExportRequest {
            source: Source::Checkpoint { dir: self.path("hf"), tokenizer: true },
            out: self.path(out),
            overwrite: false,
            name: None,
            options: ExportOptions { weights, block_size: 64, max_chunk: 8 },
            samples: Samples::default(),
        }
    }

    fn random(&self, out: &str, seed: u64) -> ExportRequest {
        let source = Source::Random { config: self.path("hf/config.json"), seed };
        ExportRequest { source, ..self.request(out, WeightFormat::Int8) }
    }

    /// The names in the directory, hidden ones too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn export(request: &ExportRequest) -> Result<Exported, ExportError> {
    recurve_author::export(request, &Recorder::default(), &AtomicBool::new(false))
}

fn text(bundle: &Bundle, filepath: &str) -> String {
    String::from_utf8(bundle.read(filepath).unwrap().unwrap()).unwrap()
}

#[test]
fn a_checkpoint_becomes_a_whole_bundle() {
    let world = World::new();
    let recorder = Recorder::default();
    let request = world.request("b", WeightFormat::Int4);
    let exported = recurve_author::export(&request, &recorder, &AtomicBool::new(false)).unwrap();
    let bundle = Bundle::open(&world.path("b")).unwrap();
    assert_eq!(*bundle.digest(), exported.digest);
    assert_eq!(bundle.verify(&mut |_| {}).unwrap().bytes, exported.bytes);
    assert_eq!(*bundle.info(), exported.info);
    assert_eq!((bundle.name(), bundle.info().end_tokens.as_slice()), ("hf", &[7, 1][..]));
    assert_eq!(text(&bundle, file::CHAT_TEMPLATE), "{{ messages }}");
    assert_eq!(text(&bundle, file::GENERATION), "{\n  \"format\": 1,\n  \"temperature\": 0.0\n}\n");
    let card = text(&bundle, file::CARD);
    assert!(card.starts_with("---\nlicense: x\n---\n# Mine\n\n## Quantization\n"), "{card}");
    assert!(card.contains("| mlp_block.gate_proj + up_proj | 4 | int4, block 32 |"), "{card}");
    let report: Value = serde_json::from_str(&text(&bundle, file::QUANTIZATION)).unwrap();
    assert_eq!(report["tensors"].as_array().unwrap().len(), exported.reports.len());
    for (phase, done) in recorder.0.into_inner().unwrap() {
        if let Phase::Weights(total) = phase {
            assert_eq!(done, total);
        }
    }
    assert_eq!(world.names(), ["b", "hf"]);
}

#[test]
fn the_golden_test_is_the_oracles_answer_of_the_stored_weights() {
    let world = World::new();
    let config = ModelConfig::read(&world.path("hf/config.json")).unwrap();
    for (format, tolerance) in [
        (WeightFormat::F32, Tolerance::MaxAbs),
        (WeightFormat::Int8, Tolerance::RelativeRms),
        (WeightFormat::Int4, Tolerance::RelativeRms),
    ] {
        export(&world.request(format.word(), format)).unwrap();
        let golden = Bundle::open(&world.path(format.word())).unwrap().golden().unwrap();
        let weights = RandomWeights::new(&config, 3);
        let rounded = Rounded::new(&weights, &config, format, 64, None);
        let logits = reference::logits(&config, &rounded, &golden.tokens, 4).unwrap();
        assert_eq!((golden.tokens.len(), golden.positions, golden.tolerance), (16, 4, tolerance));
        assert_eq!(golden.logits, logits);
    }
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let world = World::new();
    let first = export(&world.random("a", 1)).unwrap();
    assert_eq!(first.info.name, "random-56K");
    assert!(!first.tokenizer);
    assert_eq!(export(&world.random("b", 1)).unwrap().digest, first.digest);
    assert_ne!(export(&world.random("c", 2)).unwrap().digest, first.digest);
}

#[test]
fn an_output_that_exists_is_replaced_only_when_told_and_only_by_a_whole_bundle() {
    let world = World::new();
    let old = export(&world.random("b", 1)).unwrap().digest;
    let digest = || *Bundle::open(&world.path("b")).unwrap().digest();
    let again = world.random("b", 2);
    let error = export(&again).unwrap_err();
    assert!(matches!(error, ExportError::Pack(PackError::Exists { .. })), "{error}");
    let overwrite = ExportRequest { overwrite: true, ..again };
    let error = recurve_author::export(&overwrite, &Recorder::default(), &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(error, ExportError::Cancelled), "{error}");
    assert_eq!(digest(), old);
    let new = export(&overwrite).unwrap().digest;
    assert_ne!(new, old);
    assert_eq!(digest(), new);
    let over_checkpoint = ExportRequest { out: world.path("hf"), ..overwrite.clone() };
    let error = export(&over_checkpoint).unwrap_err();
    assert!(matches!(error, ExportError::Pack(PackError::NotABundle { .. })), "{error}");
    let nowhere = ExportRequest { out: world.path("no/b"), ..overwrite };
    let error = export(&nowhere).unwrap_err();
    assert!(matches!(error, ExportError::Pack(PackError::Output { .. })), "{error}");
    assert_eq!(world.names(), ["b", "hf"]);
}

type Change = fn(&World, &mut ExportRequest);

/// Each kind of wrong input with a part of its message.
const WRONG: &[(&str, Change)] = &[
    ("config.json: cannot be read", |world, _| fs::remove_file(world.path("hf/config.json")).unwrap()),
    ("tokenizer.json: not found: fetch the file", |world, _| {
        fs::remove_file(world.path("hf/tokenizer.json")).unwrap();
    }),
    ("tokenizer.json: cannot be used", |world, _| world.put("tokenizer.json", &json!({"model": 3}))),
    ("the regular expression \"(?:a(?!x)|aa(?!x))+c\" cannot be used", |world, _| {
        let mut tokenizer = tokenizer(48);
        tokenizer["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(?:a(?!x)|aa(?!x))+c"}, "behavior": "Isolated", "invert": false});
        world.put("tokenizer.json", &tokenizer);
    }),
    ("a token with the id 48, but config.json has a vocab_size of 48", |world, _| {
        world.put("tokenizer.json", &tokenizer(49));
    }),
    ("tokenizer_config.json: `chat_template` is [{\"name\":\"rag\"", |world, _| {
        world.put("tokenizer_config.json", &json!({"chat_template": [{"name": "rag", "template": ""}]}));
    }),
    ("generation_config.json: `eos_token_id` is [1,48]; allowed: a token id below vocab_size (48)", |world, _| {
        world.put("generation_config.json", &json!({"eos_token_id": [1, 48]}));
    }),
    ("generation_config.json: `top_p` is 1.5; allowed: above 0, at most 1", |world, _| {
        world.put("generation_config.json", &json!({"top_p": 1.5}));
    }),
    ("generation_config.json: `temperature` is \"hot\"", |world, _| {
        world.put("generation_config.json", &json!({"temperature": "hot"}));
    }),
    ("generation_config.json: is not a JSON object", |world, _| world.put("generation_config.json", &json!([]))),
    ("tokenizer_config.json: is not JSON", |world, _| {
        fs::write(world.path("hf/tokenizer_config.json"), "{").unwrap();
    }),
    ("README.md: is not UTF-8", |world, _| fs::write(world.path("hf/README.md"), [0xff]).unwrap()),
    ("README.md: has 4194305 bytes; at most 4194304", |world, _| {
        let file = OpenOptions::new().write(true).open(world.path("hf/README.md")).unwrap();
        file.set_len((4 << 20) + 1).unwrap();
    }),
    ("the file was cut off", |world, _| {
        let path = world.path("hf/model.safetensors");
        let size = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(size - 1).unwrap();
    }),
    ("every weight must be finite", |world, _| {
        let path = world.path("hf/model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }),
    ("--name a/b: allowed are", |_, request| request.name = Some("a/b".to_owned())),
    ("--block-size 48: allowed are", |_, request| request.options.block_size = 48),
    ("--max-chunk 0: allowed are", |_, request| request.options.max_chunk = 0),
    ("--sample-tokens 0: at least 1", |_, request| request.samples.tokens = 0),
    ("no-such.jsonl: there is no such file", |world, request| {
        request.samples.compare = Some(world.path("hf/no-such.jsonl"));
    }),
    ("only int4 is rounded by what matters", |world, request| {
        request.options.weights = WeightFormat::Int8;
        request.samples.calibrate = Some(world.path("hf/README.md"));
    }),
    ("a text is read with the checkpoint's tokenizer", |world, request| {
        request.source = Source::Checkpoint { dir: world.path("hf"), tokenizer: false };
        request.samples.compare = Some(world.path("hf/README.md"));
    }),
];

/// Texts of words that the tokenizer knows.
fn texts(first: usize) -> String {
    let line = |line: usize| {
        let words = |from: usize| -> Vec<String> { (0..9).map(|i| format!("t{}", (from + i * i) % 47)).collect() };
        format!(
            "{}\n",
            json!({"prompt": words(first + line).join(" "), "completion": words(first + 3 * line).join(" ")})
        )
    };
    (0..12).map(line).collect()
}

#[test]
fn a_quantization_is_made_and_judged_by_texts() {
    let world = World::new();
    fs::write(world.path("mine.jsonl"), texts(1)).unwrap();
    fs::write(world.path("others.jsonl"), texts(20)).unwrap();
    let samples = |calibrate: Option<&str>| Samples {
        calibrate: calibrate.map(|name| world.path(name)),
        compare: Some(world.path("others.jsonl")),
        tokens: 150,
    };
    let request =
        |out, weights, calibrate| ExportRequest { samples: samples(calibrate), ..world.request(out, weights) };
    let exact = export(&request("f32", WeightFormat::F32, None)).unwrap().comparison.unwrap();
    assert_eq!((exact.mean_kl, exact.top1_agreement), (0.0, 1.0));
    assert_eq!(exact.perplexity, exact.perplexity_f32);
    // The last of the texts is cut where the limit is.
    assert!(exact.tokens > 50 && exact.tokens < 150, "{}", exact.tokens);

    let plain = export(&request("plain", WeightFormat::Int4, None)).unwrap();
    let weighed = export(&request("weighed", WeightFormat::Int4, Some("mine.jsonl"))).unwrap();
    assert_ne!(plain.digest, weighed.digest);
    // Of the weights alone, the plain rounding has the least error.
    let error = |reports: &[recurve_author::TensorReport]| -> f64 { reports.iter().map(|r| r.relative_rms).sum() };
    assert!(error(&plain.reports) < error(&weighed.reports));
    let (before, after) = (plain.comparison.unwrap(), weighed.comparison.unwrap());
    assert!(before.mean_kl > 0.0 && after.mean_kl > 0.0 && before != after, "{before:?}, then {after:?}");

    let bundle = Bundle::open(&world.path("weighed")).unwrap();
    let report: Value = serde_json::from_str(&text(&bundle, file::QUANTIZATION)).unwrap();
    assert_eq!(report["calibration_tokens"], 150);
    assert_eq!(report["comparison"]["tokens"], after.tokens);
    let card = text(&bundle, file::CARD);
    assert!(card.contains("| Rounded by what matters over | 150 tokens |"), "{card}");
    assert!(card.contains(&format!("| Mean KL divergence | {:.2e} nats |", after.mean_kl)), "{card}");
    // The golden test is of the weights as they were rounded.
    bundle.golden().unwrap();
}

#[test]
fn each_wrong_input_has_its_own_message_and_leaves_nothing() {
    let mut wrong = Vec::new();
    for (expected, change) in WRONG {
        let world = World::new();
        let mut request = world.request("b", WeightFormat::Int4);
        change(&world, &mut request);
        let message = export(&request).unwrap_err().to_string();
        if !message.contains(expected) {
            wrong.push(format!("expected {expected:?} in: {message}"));
        }
        assert_eq!(world.names(), ["hf"], "{expected}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_a_tokenizer_the_bundle_says_so() {
    let world = World::new();
    fs::remove_file(world.path("hf/tokenizer.json")).unwrap();
    let source = Source::Checkpoint { dir: world.path("hf"), tokenizer: false };
    let request = ExportRequest { source, ..world.request("b", WeightFormat::F32) };
    assert!(!export(&request).unwrap().tokenizer);
    let bundle = Bundle::open(&world.path("b")).unwrap();
    assert!(bundle.file(file::TOKENIZER).is_none() && bundle.file(file::CHAT_TEMPLATE).is_none());
}

#[test]
fn a_template_file_comes_before_the_configurations() {
    let world = World::new();
    fs::write(world.path("hf/chat_template.jinja"), "mine").unwrap();
    export(&world.request("b", WeightFormat::F32)).unwrap();
    assert_eq!(text(&Bundle::open(&world.path("b")).unwrap(), file::CHAT_TEMPLATE), "mine");
}

#[test]
fn generation_defaults_follow_the_checkpoint() {
    for (given, expected) in [
        (json!({}), json!({"format": 1})),
        (json!({"do_sample": true, "top_k": 40}), json!({"format": 1, "temperature": 1.0, "top_k": 40})),
        (json!({"temperature": 0.5, "top_p": 0.75}), json!({"format": 1, "temperature": 0.5, "top_p": 0.75})),
        (
            json!({"do_sample": false, "temperature": 0.5, "max_new_tokens": 9, "repetition_penalty": 1.0}),
            json!({"format": 1, "temperature": 0.0, "max_tokens": 9}),
        ),
        (json!({"temperature": null, "repetition_penalty": 1.5}), json!({"format": 1, "repetition_penalty": 1.5})),
    ] {
        let world = World::new();
        world.put("generation_config.json", &given);
        export(&world.request("b", WeightFormat::F32)).unwrap();
        let written = text(&Bundle::open(&world.path("b")).unwrap(), file::GENERATION);
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), expected, "{given}");
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = recurve_author::BundleWriter::create(&dir.path().join("b"), false).unwrap();
    writer.add("x", recurve_bundle::MEDIA_DOC, b"y").unwrap();
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(count(dir.path()), 1);
    assert!(matches!(writer.reserve(u64::MAX), Err(PackError::NoRoom { .. })));
    drop(writer);
    assert_eq!(count(dir.path()), 0);
}
