//! Every damaged checkpoint gets its own clear error from `agent-cli export`, and nothing is left behind.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use recurve_tests::process::{agent_cli, run};
use recurve_tests::reference::repository;
use recurve_tests::world::path;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The command line is wrong.
const USAGE: i32 = 2;
/// This machine failed.
const FAILED: i32 = 1;
/// The checkpoint is wrong.
const DAMAGED: i32 = 7;

/// A folder with a good checkpoint `hf`, of which each case breaks something.
struct Place {
    dir: TempDir,
    args: Vec<String>,
}

impl Place {
    fn new(reference: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hf = dir.path().join("hf");
        fs::create_dir(&hf).unwrap();
        for entry in fs::read_dir(repository().join("tests/reference/data").join(reference)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "expected.safetensors" {
                fs::copy(entry.path(), hf.join(entry.file_name())).unwrap();
            }
        }
        let place = Self { dir, args: Vec::new() };
        place.put("tokenizer.json", &tokenizer(4));
        place
    }

    fn hf(&self, name: &str) -> PathBuf {
        self.dir.path().join("hf").join(name)
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn put(&self, name: &str, value: &Value) {
        fs::write(self.hf(name), value.to_string()).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.hf(name)).unwrap()).unwrap()
    }

    /// Sets a field of a JSON file; null removes it.
    fn set(&self, name: &str, field: &str, value: Value) {
        let mut file = self.json(name);
        let object = file.as_object_mut().unwrap();
        match value {
            Value::Null => drop(object.remove(field)),
            value => drop(object.insert(field.to_owned(), value)),
        }
        self.put(name, &file);
    }

    /// Rewrites the header of the weights; the tensors' bytes stay as they are.
    fn header(&self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let file = self.hf("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
        change(header.as_object_mut().unwrap());
        let header = header.to_string().into_bytes();
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header);
        changed.extend(&bytes[8 + size..]);
        fs::write(file, changed).unwrap();
    }

    /// Appends a bf16 tensor to the weights, all of whose values are this one.
    fn append(&self, name: &str, shape: &[usize], value: &[u8; 2]) {
        let values = shape.iter().product();
        let file = self.hf("model.safetensors");
        self.header(|header| {
            let end = |entry: &Value| entry["data_offsets"][1].as_u64();
            let begin = header.values().filter_map(end).max().unwrap();
            let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, begin + 2 * values as u64]});
            header.insert(name.to_owned(), entry);
        });
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend(value.repeat(values));
        fs::write(&file, bytes).unwrap();
    }

    /// Overwrites bytes of the weights, counted from the end where `at` is negative.
    fn poke(&self, at: i64, bytes: &[u8]) {
        let file = self.hf("model.safetensors");
        let mut all = fs::read(&file).unwrap();
        let at = if at < 0 { all.len() - at.unsigned_abs() as usize } else { at as usize };
        all[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(file, all).unwrap();
    }

    fn resize(&self, name: &str, change: i64) {
        let file = fs::OpenOptions::new().write(true).open(self.hf(name)).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.checked_add_signed(change).unwrap()).unwrap();
    }

    /// Every path below the folder, hidden ones too, with its size.
    fn listing(&self) -> BTreeSet<(PathBuf, u64)> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.dir.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    open.push(entry.path());
                }
                found.insert((entry.path(), if metadata.is_dir() { 0 } else { metadata.len() }));
            }
        }
        found
    }
}

fn tokenizer(tokens: usize) -> Value {
    let vocab: serde_json::Map<String, Value> = (0..tokens).map(|id| (format!("t{id}"), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    })
}

const EMBED: &str = "model.embed_tokens.weight";
/// What `git clone` leaves where Git LFS is not installed.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 6219848\n";
const INDEX: &str = "model.safetensors.index.json";

/// What is broken, the exit code, and the parts of the message that name it.
type Case = (&'static str, i32, &'static [&'static str], fn(&mut Place));

const WEIGHTS: &[Case] = &[
    ("no weights", DAMAGED, &["hf", "model.safetensors"], |p| fs::remove_file(p.hf("model.safetensors")).unwrap()),
    ("last byte cut off", DAMAGED, &["model.safetensors", "cut off"], |p| p.resize("model.safetensors", -1)),
    ("half cut off", DAMAGED, &["model.safetensors", "cut off"], |p| {
        let size = fs::metadata(p.hf("model.safetensors")).unwrap().len() as i64;
        p.resize("model.safetensors", -size / 2);
    }),
    ("a byte too many", DAMAGED, &["model.safetensors", "appended"], |p| p.resize("model.safetensors", 1)),
    ("empty weights", DAMAGED, &["model.safetensors"], |p| fs::write(p.hf("model.safetensors"), "").unwrap()),
    ("cut within the header", DAMAGED, &["model.safetensors"], |p| {
        let bytes = fs::read(p.hf("model.safetensors")).unwrap();
        fs::write(p.hf("model.safetensors"), &bytes[..100]).unwrap();
    }),
    ("a huge header", DAMAGED, &["model.safetensors"], |p| p.poke(0, &u64::MAX.to_le_bytes())),
    ("a header of nothing", DAMAGED, &["model.safetensors"], |p| p.poke(0, &0_u64.to_le_bytes())),
    ("a header that is not JSON", DAMAGED, &["model.safetensors"], |p| p.poke(8, b"[[[[")),
    ("a web page instead of weights", DAMAGED, &["model.safetensors"], |p| {
        fs::write(p.hf("model.safetensors"), "<!DOCTYPE html><html><body>404 Not Found</body></html>").unwrap();
    }),
    ("a pointer of Git LFS instead of weights", DAMAGED, &["model.safetensors", "git lfs pull"], |p| {
        fs::write(p.hf("model.safetensors"), POINTER).unwrap();
    }),
    ("a link to nothing instead of weights", DAMAGED, &["model.safetensors", "link to ../../blobs/0123"], |p| {
        fs::remove_file(p.hf("model.safetensors")).unwrap();
        symlink("../../blobs/0123", p.hf("model.safetensors")).unwrap();
    }),
    ("weights of another format", DAMAGED, &["`pytorch_model.bin`", "save_pretrained"], |p| {
        fs::rename(p.hf("model.safetensors"), p.hf("pytorch_model.bin")).unwrap();
    }),
    ("two files of weights", DAMAGED, &["several files of weights: a.safetensors, b.safetensors"], |p| {
        fs::copy(p.hf("model.safetensors"), p.hf("a.safetensors")).unwrap();
        fs::rename(p.hf("model.safetensors"), p.hf("b.safetensors")).unwrap();
    }),
    ("an adapter instead of weights", DAMAGED, &["adapter_model.safetensors", "merge"], |p| {
        fs::rename(p.hf("model.safetensors"), p.hf("adapter_model.safetensors")).unwrap();
    }),
    (
        "a head of its own",
        DAMAGED,
        &["`lm_head.weight`", "differs from model.embed_tokens.weight: value 0 is 2"],
        |p| {
            p.append("lm_head.weight", &[128, 64], &[0x00, 0x40]);
        },
    ),
    ("a head of another shape", DAMAGED, &["`lm_head.weight`", "[127, 64]"], |p| {
        p.append("lm_head.weight", &[127, 64], &[0x00, 0x40]);
    }),
    ("frequencies of another base", DAMAGED, &["rotary_emb.inv_freq", "rope_theta"], |p| {
        p.append("model.layers.2.temporal_block.rotary_emb.inv_freq", &[4], &[0x80, 0x3f]);
    }),
    ("weights that are too large for f32", DAMAGED, &["golden test", "not finite"], |p| {
        // The last value of the last tensor, as bf16: 3e38.
        p.poke(-2, &[0x62, 0x7f]);
    }),
    ("weights that are a folder", DAMAGED, &["model.safetensors"], |p| {
        fs::remove_file(p.hf("model.safetensors")).unwrap();
        fs::create_dir(p.hf("model.safetensors")).unwrap();
    }),
    ("a missing tensor", DAMAGED, &["model.safetensors", "model.final_norm.weight", "missing"], |p| {
        p.header(|header| {
            let norm = header.remove("model.final_norm.weight").unwrap();
            header.insert("model.rotary_emb.inv_freq".into(), norm);
        });
    }),
    ("a misnamed tensor", DAMAGED, &["model.embed_tokens.weight", "is it `model.embed_token.weight`"], |p| {
        p.header(|header| {
            let embed = header.remove(EMBED).unwrap();
            header.insert("model.embed_token.weight".into(), embed);
        });
    }),
    ("a transposed tensor", DAMAGED, &[EMBED, "shape"], |p| {
        p.header(|header| header[EMBED]["shape"].as_array_mut().unwrap().reverse());
    }),
    ("a flat tensor", DAMAGED, &[EMBED, "shape"], |p| {
        p.header(|header| {
            let shape = header[EMBED]["shape"].as_array().unwrap();
            let size: u64 = shape.iter().map(|dim| dim.as_u64().unwrap()).product();
            header[EMBED]["shape"] = json!([size]);
        });
    }),
    ("integers", DAMAGED, &[EMBED, "I16", "BF16"], |p| p.header(|header| header[EMBED]["dtype"] = json!("I16"))),
    ("an unknown type", DAMAGED, &["model.safetensors"], |p| p.header(|header| header[EMBED]["dtype"] = json!("Q4"))),
    ("too few bytes for a type", DAMAGED, &["model.safetensors"], |p| {
        p.header(|header| header[EMBED]["dtype"] = json!("F32"));
    }),
    ("overlapping tensors", DAMAGED, &["model.safetensors"], |p| {
        p.header(|header| {
            let offsets = header["model.final_norm.weight"]["data_offsets"].clone();
            let other = header.iter().find(|(name, _)| name.ends_with("channel_pre_norm.weight")).unwrap().0.clone();
            header[&other]["data_offsets"] = offsets;
        });
    }),
    ("NaN", DAMAGED, &["model.safetensors", "NaN", "finite"], |p| p.poke(-4, &f32::NAN.to_le_bytes())),
    ("infinity", DAMAGED, &["model.safetensors", "inf", "finite"], |p| p.poke(-4, &f32::INFINITY.to_le_bytes())),
];

const SHARDS: &[Case] = &[
    ("a missing shard", DAMAGED, &["model-00002-of-00003.safetensors"], |p| {
        fs::remove_file(p.hf("model-00002-of-00003.safetensors")).unwrap();
    }),
    ("a shard cut off", DAMAGED, &["model-00003-of-00003.safetensors", "cut off"], |p| {
        p.resize("model-00003-of-00003.safetensors", -7);
    }),
    ("an index that is not JSON", DAMAGED, &[INDEX], |p| fs::write(p.hf(INDEX), "{\"weight_map\": ").unwrap()),
    ("an index without a map", DAMAGED, &[INDEX, "weight_map"], |p| p.set(INDEX, "weight_map", Value::Null)),
    ("an index with an empty map", DAMAGED, &[INDEX], |p| p.set(INDEX, "weight_map", json!({}))),
    ("an index with a number for a file", DAMAGED, &[INDEX], |p| p.set(INDEX, "weight_map", json!({EMBED: 3}))),
    ("an index that leaves the folder", DAMAGED, &[INDEX, "../hf/model-00001"], |p| {
        p.set(INDEX, "weight_map", json!({EMBED: "../hf/model-00001-of-00003.safetensors"}));
    }),
    ("an index with an absolute path", DAMAGED, &[INDEX, "/etc/passwd"], |p| {
        p.set(INDEX, "weight_map", json!({EMBED: "/etc/passwd"}));
    }),
    ("no index, and a shard is missing", DAMAGED, &["model-00002-of-00003.safetensors", "is missing"], |p| {
        fs::remove_file(p.hf(INDEX)).unwrap();
        fs::remove_file(p.hf("model-00002-of-00003.safetensors")).unwrap();
    }),
    ("a pointer of Git LFS instead of an index", DAMAGED, &[INDEX, "git lfs pull"], |p| {
        fs::write(p.hf(INDEX), POINTER).unwrap();
    }),
    ("a tensor in two shards", DAMAGED, &["is also in another file"], |p| {
        let (from, to) = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors");
        fs::copy(p.hf(from), p.hf(to)).unwrap();
    }),
];

const CONFIG: &[Case] = &[
    ("no configuration", DAMAGED, &["config.json"], |p| fs::remove_file(p.hf("config.json")).unwrap()),
    ("a configuration that is not JSON", DAMAGED, &["config.json", "JSON"], |p| {
        fs::write(p.hf("config.json"), "model_type: recurrent_gemma").unwrap();
    }),
    ("a pointer of Git LFS instead of a configuration", DAMAGED, &["config.json", "git lfs pull"], |p| {
        fs::write(p.hf("config.json"), POINTER).unwrap();
    }),
    ("a link to nothing instead of a configuration", DAMAGED, &["config.json", "link to ../../blobs/45"], |p| {
        fs::remove_file(p.hf("config.json")).unwrap();
        symlink("../../blobs/45", p.hf("config.json")).unwrap();
    }),
    ("several snapshots", DAMAGED, &["several snapshots", "snapshots/a, ", "snapshots/b"], |p| {
        fs::remove_file(p.hf("config.json")).unwrap();
        fs::create_dir_all(p.hf("snapshots/a")).unwrap();
        fs::create_dir_all(p.hf("snapshots/b")).unwrap();
    }),
    ("a configuration that is a list", DAMAGED, &["config.json", "an array"], |p| p.put("config.json", &json!([]))),
    ("no model_type", DAMAGED, &["model_type", "missing"], |p| p.set("config.json", "model_type", Value::Null)),
    ("another layer count", DAMAGED, &["tensor", "missing"], |p| {
        let layers = p.json("config.json")["num_hidden_layers"].as_u64().unwrap();
        p.set("config.json", "num_hidden_layers", json!(layers + 1));
    }),
    ("a layer too many in the weights", DAMAGED, &["does not belong"], |p| {
        let layers = p.json("config.json")["num_hidden_layers"].as_u64().unwrap();
        p.set("config.json", "num_hidden_layers", json!(layers - 1));
    }),
    ("another vocabulary", DAMAGED, &[EMBED, "shape"], |p| p.set("config.json", "vocab_size", json!(65_000))),
    ("scaled rotary embedding", DAMAGED, &["rope_type", "yarn"], |p| {
        p.set("config.json", "rope_parameters", json!({"rope_type": "yarn", "rope_theta": 10000.0}));
    }),
];

/// Fields of `config.json` with values that are not allowed.
const FIELDS: &[(&str, &str)] = &[
    ("model_type", "\"gemma2\""),
    ("hidden_activation", "\"relu\""),
    ("tie_word_embeddings", "false"),
    ("quantization_config", "{\"bits\":4}"),
    ("vocab_size", "0"),
    ("hidden_size", "-32"),
    ("intermediate_size", "1.5"),
    ("num_hidden_layers", "1000000"),
    ("num_attention_heads", "\"four\""),
    ("num_key_value_heads", "3"),
    ("attention_window_size", "0"),
    ("conv1d_width", "1"),
    ("lru_width", "31"),
    ("logits_soft_cap", "-1.0"),
    ("rms_norm_eps", "2.5"),
    ("block_types", "[\"recurrent\",\"mamba\"]"),
    ("attention_bias", "\"yes\""),
    ("bos_token_id", "70000000"),
    ("eos_token_id", "[-1]"),
];

const TOKENIZER: &[Case] = &[
    ("no tokenizer", DAMAGED, &["tokenizer.json", "--no-tokenizer"], |p| {
        fs::remove_file(p.hf("tokenizer.json")).unwrap();
    }),
    (
        "only the slow tokenizer",
        DAMAGED,
        &["tokenizer.json", "tokenizer.model (SentencePiece)", "save_pretrained"],
        |p| {
            fs::rename(p.hf("tokenizer.json"), p.hf("tokenizer.model")).unwrap();
        },
    ),
    ("a pointer of Git LFS instead of a tokenizer", DAMAGED, &["tokenizer.json", "git lfs pull"], |p| {
        fs::write(p.hf("tokenizer.json"), POINTER).unwrap();
    }),
    ("a link to nothing instead of defaults", DAMAGED, &["generation_config.json", "link to ../../blobs/67"], |p| {
        fs::remove_file(p.hf("generation_config.json")).unwrap();
        symlink("../../blobs/67", p.hf("generation_config.json")).unwrap();
    }),
    ("a tokenizer that is not JSON", DAMAGED, &["tokenizer.json"], |p| {
        fs::write(p.hf("tokenizer.json"), "\u{0}sentencepiece").unwrap();
    }),
    ("an empty tokenizer", DAMAGED, &["tokenizer.json"], |p| p.put("tokenizer.json", &json!({}))),
    ("a tokenizer of another model", DAMAGED, &["tokenizer.json", "300", "vocab_size"], |p| {
        p.put("tokenizer.json", &tokenizer(301));
    }),
    ("a wrong chat template", DAMAGED, &["tokenizer_config.json", "chat_template"], |p| {
        p.put("tokenizer_config.json", &json!({"chat_template": 7}));
    }),
    ("an end of text beyond the vocabulary", DAMAGED, &["generation_config.json", "eos_token_id"], |p| {
        p.put("generation_config.json", &json!({"eos_token_id": 70_000_000}));
    }),
    ("a wrong generation default", DAMAGED, &["generation_config.json", "top_p", "1.5"], |p| {
        p.put("generation_config.json", &json!({"top_p": 1.5}));
    }),
];

const OUTPUT: &[Case] = &[
    ("an output that exists", USAGE, &["bundle", "--overwrite"], |p| fs::create_dir(p.out()).unwrap()),
    ("an output that is no bundle", USAGE, &["bundle"], |p| {
        fs::create_dir(p.out()).unwrap();
        fs::write(p.out().join("diary.txt"), "kept").unwrap();
        p.args.push("--overwrite".into());
    }),
    ("an output that is a link", USAGE, &["link"], |p| {
        let link = p.dir.path().join("link");
        symlink(p.hf("."), &link).unwrap();
        p.args.extend(["--overwrite".into(), "--out".into(), link.display().to_string()]);
    }),
    ("a folder that does not exist", USAGE, &["does not exist"], |p| {
        p.args.extend(["--out".into(), p.dir.path().join("no/bundle").display().to_string()]);
    }),
    ("an output without a name", USAGE, &["no name of its own"], |p| {
        p.args.extend(["--out".into(), p.hf("..").display().to_string()]);
    }),
    ("a wrong block size", USAGE, &["--block-size", "48"], |p| p.args.extend(["--block-size".into(), "48".into()])),
    ("a wrong name", USAGE, &["--name", "a/b"], |p| p.args.extend(["--name".into(), "a/b".into()])),
];

/// Collects what is not as promised, so that one run tells everything.
#[derive(Default)]
struct Findings {
    messages: BTreeSet<String>,
    wrong: Vec<String>,
    cases: usize,
}

impl Findings {
    fn check(&mut self, case: &str, place: &Place, code: i32, parts: &[&str]) {
        let before = place.listing();
        let (hf, out) = (place.dir.path().join("hf"), place.out());
        let mut command = agent_cli(&["export", path(&hf)]);
        if !place.args.iter().any(|arg| arg == "--out") {
            command.args(["--out", path(&out)]);
        }
        let ended = run(command.args(&place.args));
        let said = ended.stderr.replace(path(place.dir.path()), "");
        self.cases += 1;
        let mut wrong = |what: &str| self.wrong.push(format!("{case}: {what}; exit {:?}: {said}", ended.code));
        if ended.code != Some(code) {
            wrong(&format!("exit code {code} expected"));
        }
        for part in parts.iter().filter(|part| !said.contains(*part)) {
            wrong(&format!("does not name {part:?}"));
        }
        // What clap says of the command line has lines of its own.
        let one = said.starts_with("agent-cli: ") && said.trim_end().lines().count() == 1;
        if !one && !said.starts_with("error: ") {
            wrong("not one line");
        }
        if said.contains("panicked") || !ended.stdout.is_empty() {
            wrong("panicked, or wrote to standard output");
        }
        if place.listing() != before {
            wrong("left something behind");
        }
        if !self.messages.insert(said.clone()) {
            self.wrong.push(format!("{case}: another case has the same message: {said}"));
        }
    }
}

#[test]
fn each_in_one_line_and_nothing_is_left() {
    let mut findings = Findings::default();
    for (reference, cases) in [
        ("rra-mqa", WEIGHTS),
        ("sharded-mixed", SHARDS),
        ("rra-mqa", CONFIG),
        ("rra-mqa", TOKENIZER),
        ("rra-mqa", OUTPUT),
    ] {
        for (case, code, parts, damage) in cases {
            let mut place = Place::new(reference);
            damage(&mut place);
            findings.check(case, &place, *code, parts);
        }
    }
    for (field, value) in FIELDS {
        let place = Place::new("rra-mqa");
        place.set("config.json", field, serde_json::from_str(value).unwrap());
        findings.check(&format!("{field} {value}"), &place, DAMAGED, &["config.json", field]);
    }
    assert!(findings.wrong.is_empty(), "{}", findings.wrong.join("\n"));
    assert!(findings.cases >= 40, "{} cases", findings.cases);
    println!("{} damaged checkpoints", findings.cases);
}

#[test]
fn and_the_good_one_they_are_made_of_is_exported() {
    for reference in ["rra-mqa", "sharded-mixed"] {
        let place = Place::new(reference);
        let (hf, out) = (place.dir.path().join("hf"), place.out());
        run(&mut agent_cli(&["export", path(&hf), "--out", path(&out)])).success();
        run(&mut agent_cli(&["bundle", "verify", path(&out)])).success();
    }
}

#[test]
fn what_follows_from_the_rest_is_taken_and_so_is_any_folder_that_leaves_no_choice() {
    let exported = |place: &Place| {
        let (hf, out) = (place.dir.path().join("hf"), place.out());
        let made = run(&mut agent_cli(&["export", path(&hf), "--out", path(&out), "--name", "x", "--format", "json"]));
        made.json()["digest"].as_str().unwrap().to_owned()
    };
    let plain = exported(&Place::new("rra-mqa"));
    let sharded = exported(&Place::new("sharded-mixed"));

    let same_head = Place::new("rra-mqa");
    let bytes = fs::read(same_head.hf("model.safetensors")).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let embedding = header[EMBED]["data_offsets"].clone();
    let at = |index: usize| 8 + size + embedding[index].as_u64().unwrap() as usize;
    same_head.append("lm_head.weight", &[128, 64], &[0, 0]);
    let head = &bytes[at(0)..at(1)];
    same_head.poke(-(head.len() as i64), head);
    assert_eq!(exported(&same_head), plain);

    let other_name = Place::new("rra-mqa");
    fs::rename(other_name.hf("model.safetensors"), other_name.hf("model-00001-of-00001.safetensors")).unwrap();
    assert_eq!(exported(&other_name), plain);
    let no_index = Place::new("sharded-mixed");
    fs::remove_file(no_index.hf(INDEX)).unwrap();
    assert_eq!(exported(&no_index), sharded);
    let entry = Place::new("rra-mqa");
    let snapshot = entry.dir.path().join("hf/snapshots");
    fs::rename(entry.dir.path().join("hf"), entry.dir.path().join("files")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::rename(entry.dir.path().join("files"), snapshot.join("0123")).unwrap();
    assert_eq!(exported(&entry), plain);
}

#[test]
fn any_path_can_be_written_to_and_is_quoted_for_a_shell() {
    let place = Place::new("rra-mqa");
    let hf = place.dir.path().join("hf");
    let words = place.dir.path().join("two words");
    let said = run(&mut agent_cli(&["export", path(&hf), "--out", path(&words)])).success();
    assert!(said.trim_end().ends_with(&format!("recurved --bundle '{}'", path(&words))), "{said}");
    let bytes = place.dir.path().join(OsStr::from_bytes(b"not UTF-8: \xff"));
    run(agent_cli(&["export", path(&hf), "--format", "json", "--out"]).arg(&bytes)).json();
    assert!(bytes.join("index.json").is_file());
}

#[test]
fn a_folder_that_cannot_be_written_to() {
    let place = Place::new("rra-mqa");
    let closed = place.dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    let (hf, out) = (place.dir.path().join("hf"), closed.join("bundle"));
    let ended = run(&mut agent_cli(&["export", path(&hf), "--out", path(&out)]));
    assert!(ended.code == Some(FAILED) && ended.stderr.contains(path(&closed)), "{ended:?}");
}

/// A path that is printed as it is.
#[test]
fn paths_are_those_that_were_given() {
    let ended = run(&mut agent_cli(&["export", "no-such-checkpoint", "--out", path(Path::new("no-such-bundle"))]));
    assert_eq!(ended.code, Some(DAMAGED), "{}", ended.stderr);
    assert!(ended.stderr.contains("no-such-checkpoint/config.json"), "{}", ended.stderr);
}
