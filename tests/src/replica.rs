//! Replicas of the published RecurrentGemma repositories: every file as published, but the weights are random, and few and
//! narrow layers are enough for tests.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use recurve_model::{ModelConfig, RandomWeights, Weights as _, shapes};
use serde_json::{Map, Value, json};

/// Values that are drawn and written at a time.
const PIECE: usize = 4 << 20;
/// Tokens that the instruction-tuned repositories mark as special.
const TURNS: [(u32, &str); 2] = [(106, "<start_of_turn>"), (107, "<end_of_turn>")];
/// The revision that the replica of a cache has.
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// The chat template of Gemma's instruction-tuned models.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";

/// A published repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// google/recurrentgemma-2b: completes texts, no chat template, one token that ends a text.
    Base2b,
    /// google/recurrentgemma-2b-it: chats, two tokens that end an answer.
    Chat2b,
    /// google/recurrentgemma-9b-it: the same, larger.
    Chat9b,
}

/// How large a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As published.
    Full,
    /// The published widths, and this many layers.
    Layers(usize),
    /// Three layers, a tenth of the width or less.
    Small,
}

impl Published {
    /// The name that the repository has after its owner's.
    pub fn name(self) -> &'static str {
        match self {
            Published::Base2b => "recurrentgemma-2b",
            Published::Chat2b => "recurrentgemma-2b-it",
            Published::Chat9b => "recurrentgemma-9b-it",
        }
    }

    fn chats(self) -> bool {
        self != Published::Base2b
    }

    fn shards(self) -> usize {
        if self == Published::Chat9b { 4 } else { 2 }
    }

    /// `config.json`. Small ones keep all but the number of layers, widths, heads and the window.
    fn config(self, size: Size) -> Value {
        let large = self == Published::Chat9b;
        let (layers, heads, hidden, head_dim, window) = match (large, size) {
            (false, Size::Small) => (3, 2, 128, 64, 64),
            (true, Size::Small) => (3, 4, 256, 64, 64),
            (false, Size::Layers(layers)) => (layers, 10, 2560, 256, 2048),
            (true, Size::Layers(layers)) => (layers, 16, 4096, 256, 2048),
            (false, Size::Full) => (26, 10, 2560, 256, 2048),
            (true, Size::Full) => (38, 16, 4096, 256, 2048),
        };
        json!({
            "_block_types": ["recurrent", "recurrent", "attention"],
            "architectures": ["RecurrentGemmaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "attention_window_size": window,
            "bos_token_id": 2,
            "conv1d_width": 4,
            "embeddings_scale_by_sqrt_dim": true,
            "eos_token_id": 1,
            "final_w_init_variance_scale": 2.0 / f64::from(layers as u32),
            "head_dim": head_dim,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": hidden,
            "intermediate_size": 6 * hidden,
            "logits_soft_cap": 30.0,
            "lru_width": hidden,
            "model_type": "recurrent_gemma",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "partial_rotary_factor": 0.5,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "torch_dtype": "bfloat16",
            "transformers_version": if large { "4.42.0.dev0" } else { "4.40.0.dev0" },
            "use_cache": true,
            "vocab_size": 256_000,
            "w_init_variance_scale": 0.01,
        })
    }
}

/// Gemma's `tokenizer.json`, where `RECURVE_TOKENIZER` names it; says so where it does not.
pub fn tokenizer() -> Option<PathBuf> {
    let named = std::env::var_os("RECURVE_TOKENIZER").map(PathBuf::from);
    if named.is_none() {
        println!("skipped: RECURVE_TOKENIZER names no tokenizer.json of Gemma, as tests/run.sh fetches it");
    }
    named
}

/// Writes the repository into a new folder. `tokenizer` is Gemma's `tokenizer.json`, without the tokens of turns.
pub fn write(published: Published, size: Size, seed: u64, tokenizer: &Path, dir: &Path) {
    fs::create_dir_all(dir).expect("a folder");
    let config = published.config(size);
    put(dir, "config.json", &config);
    let ends = if published.chats() { json!([1, 107]) } else { json!(1) };
    put(
        dir,
        "generation_config.json",
        &json!({
            "_from_model_config": true, "bos_token_id": 2, "eos_token_id": ends, "pad_token_id": 0,
            "transformers_version": config["transformers_version"],
        }),
    );
    write_tokenizer(published, tokenizer, dir);
    let card = "---\nlicense: gemma\nlibrary_name: transformers\n---\n\n# RecurrentGemma Model Card\n";
    fs::write(dir.join("README.md"), card).expect("a file");
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n\
        tokenizer.json filter=lfs diff=lfs merge=lfs -text\n";
    fs::write(dir.join(".gitattributes"), attributes).expect("a file");
    let config = ModelConfig::read(&dir.join("config.json")).expect("a configuration");
    write_weights(&config, published.shards(), seed, dir);
}

/// `tokenizer.json` and the files that speak of it.
fn write_tokenizer(published: Published, tokenizer: &Path, dir: &Path) {
    let read = fs::read(tokenizer).unwrap_or_else(|error| panic!("{}: {error}", tokenizer.display()));
    let mut special = vec![(0, "<pad>"), (1, "<eos>"), (2, "<bos>"), (3, "<unk>")];
    if published.chats() {
        let mut file: Value = serde_json::from_slice(&read).expect("a tokenizer.json");
        let added = file["added_tokens"].as_array_mut().expect("added tokens");
        added.extend(TURNS.map(|(id, content)| token(content, Some(id))));
        put(dir, "tokenizer.json", &file);
        special.extend(TURNS);
    } else {
        fs::write(dir.join("tokenizer.json"), read).expect("a file");
    }
    let decoder: Map<String, Value> =
        special.iter().map(|(id, content)| (id.to_string(), token(content, None))).collect();
    let mut config = json!({
        "add_bos_token": true, "add_eos_token": false, "added_tokens_decoder": decoder, "bos_token": "<bos>",
        "clean_up_tokenization_spaces": false, "eos_token": "<eos>", "legacy": null,
        "model_max_length": 1e30, "pad_token": "<pad>", "sp_model_kwargs": {}, "spaces_between_special_tokens": false,
        "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": false,
    });
    let mut map = Map::new();
    if published.chats() {
        config["additional_special_tokens"] = json!(TURNS.map(|(_, content)| content));
        config["chat_template"] = CHAT_TEMPLATE.into();
        map.insert("additional_special_tokens".to_owned(), json!(TURNS.map(|(_, content)| content)));
    }
    for name in ["bos", "eos", "pad", "unk"] {
        let mut entry = token(&format!("<{name}>"), None);
        entry.as_object_mut().expect("an object").remove("special");
        map.insert(format!("{name}_token"), entry);
    }
    put(dir, "tokenizer_config.json", &config);
    put(dir, "special_tokens_map.json", &Value::Object(map));
}

/// An added token as these files have it; with its id only in `tokenizer.json`.
fn token(content: &str, id: Option<u32>) -> Value {
    let mut token = json!({
        "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
    });
    if let Some(id) = id {
        token["id"] = id.into();
    }
    token
}

/// bf16 in about equal shards, and their index.
fn write_weights(config: &ModelConfig, shards: usize, seed: u64, dir: &Path) {
    let weights = RandomWeights::new(config, seed);
    let tensors = shapes::tensors(config);
    let total: usize = tensors.iter().map(|tensor| 2 * tensor.len()).sum();
    let mut map = Map::new();
    let mut rest = tensors.as_slice();
    for shard in 1..=shards {
        let mut bytes = 0;
        let fill = |tensor: &shapes::TensorShape| {
            bytes += 2 * tensor.len();
            bytes >= total / shards
        };
        let count = match shard == shards {
            true => rest.len(),
            false => rest.iter().position(fill).map_or(rest.len(), |last| last + 1),
        };
        let (here, after) = rest.split_at(count);
        rest = after;
        let name = format!("model-{shard:05}-of-{shards:05}.safetensors");
        write_shard(&weights, here, &dir.join(&name));
        map.extend(here.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
    }
    put(dir, "model.safetensors.index.json", &json!({"metadata": {"total_size": total}, "weight_map": map}));
}

fn write_shard(weights: &RandomWeights, tensors: &[shapes::TensorShape], path: &Path) {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + 2 * tensor.len();
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut header = serde_json::to_vec(&header).expect("JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(&header)).expect("space");
    let mut values = Vec::new();
    for tensor in tensors {
        for first in (0..tensor.len()).step_by(PIECE) {
            values.resize(PIECE.min(tensor.len() - first), 0.0);
            weights.read(&tensor.name, first, &mut values).expect("a tensor of the configuration");
            let bytes: Vec<u8> = values.iter().flat_map(|value| bf16(*value).to_le_bytes()).collect();
            file.write_all(&bytes).expect("space");
        }
    }
    file.flush().expect("space");
}

/// The nearest bf16, ties to even, of a finite number.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Moves a repository into a cache as Hugging Face's library lays it out: the files lie in `blobs` under other names, and
/// a snapshot has symbolic links to them. Returns the snapshot's folder.
pub fn into_cache(repository: &Path, cache: &Path, published: Published) -> PathBuf {
    let root = cache.join(format!("models--google--{}", published.name()));
    let snapshot = root.join("snapshots").join(REVISION);
    for folder in [root.join("blobs"), root.join("refs"), snapshot.clone()] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(root.join("refs/main"), REVISION).expect("a file");
    for (number, entry) in fs::read_dir(repository).expect("a folder").enumerate() {
        let entry = entry.expect("an entry");
        let blob = format!("{number:064x}");
        fs::rename(entry.path(), root.join("blobs").join(&blob)).expect("the same disk");
        symlink(Path::new("../../blobs").join(&blob), snapshot.join(entry.file_name())).expect("a link");
    }
    snapshot
}

fn put(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), serde_json::to_vec_pretty(value).expect("JSON")).expect("a file");
}
