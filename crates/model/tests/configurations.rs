//! What a `config.json` may say, in which words, and what is said of one that cannot be used.

use std::path::Path;

use recurve_model::{BlockType, ConfigError, ModelConfig};
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "model_type": "recurrent_gemma", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 96,
        "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_window_size": 8
    })
}

fn read(changes: Value) -> Result<ModelConfig, ConfigError> {
    let mut config = base();
    for (field, value) in changes.as_object().into_iter().flatten() {
        config[field] = value.clone();
    }
    ModelConfig::from_json(config.to_string().as_bytes(), Path::new("hf/config.json"))
}

#[test]
fn both_spellings_mean_the_same() {
    let four = json!({"rope_theta": 500.0, "partial_rotary_factor": 0.25, "torch_dtype": "bfloat16"});
    let five = json!({"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.25, "rope_type": "default"}, "dtype": "bfloat16"});
    let older_name = json!({"rope_scaling": {"rope_theta": 500.0, "partial_rotary_factor": 0.25}});
    let four = read(four).unwrap();
    assert_eq!(four, read(five).unwrap());
    assert_eq!(four, read(older_name).unwrap());
    assert_eq!((four.rope_theta, four.rotary_dim), (500.0, 2));
}

#[test]
fn the_published_configuration_is_read_as_each_version_writes_it() {
    let common = json!({
        "architectures": ["RecurrentGemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attention_window_size": 2048, "bos_token_id": 2, "conv1d_width": 4, "eos_token_id": 1, "head_dim": 256,
        "final_w_init_variance_scale": 0.076_923_076_923_076_93, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2560, "intermediate_size": 15360, "logits_soft_cap": 30.0, "lru_width": 2560,
        "model_type": "recurrent_gemma", "num_attention_heads": 10, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "rms_norm_eps": 1e-6, "use_cache": true, "vocab_size": 256_000,
        "w_init_variance_scale": 0.01,
    });
    let pattern = json!(["recurrent", "recurrent", "attention"]);
    let published = json!({
        "_block_types": pattern, "embeddings_scale_by_sqrt_dim": true, "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.40.0.dev0",
    });
    let middle = json!({
        "_block_types": pattern, "block_types": pattern, "embeddings_scale_by_sqrt_dim": true,
        "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.47.0",
    });
    let five = json!({
        "block_types": pattern, "dtype": "bfloat16", "tie_word_embeddings": true, "transformers_version": "5.24.0",
        "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rope_type": "default"},
    });
    let read = |spelling: Value| {
        let mut config = common.clone();
        config.as_object_mut().unwrap().extend(spelling.as_object().unwrap().clone());
        ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json")).unwrap()
    };
    let config = read(published);
    assert_eq!((config.blocks.len(), config.parameters()), (26, 2_682_862_080));
    assert_eq!((config.head_dim, config.rotary_dim, config.window, config.mlp_width), (256, 128, 2048, 7680));
    assert_eq!(read(middle), config);
    assert_eq!(read(five), config);
}

#[test]
fn a_list_of_all_layers_says_the_same_as_the_pattern_or_is_refused() {
    use BlockType::{Attention, Recurrent};
    let listed = json!(["linear_attention", "sliding_attention", "linear_attention", "recurrent", "attention"]);
    let expected = [Recurrent, Attention, Recurrent, Recurrent, Attention];
    assert_eq!(read(json!({"layer_types": listed})).unwrap().blocks, expected);
    let pattern = json!(["recurrent", "attention", "recurrent"]);
    assert_eq!(read(json!({"layer_types": listed, "block_types": pattern})).unwrap().blocks, expected);
    for (types, part) in [
        (json!({"layer_types": listed, "block_types": ["recurrent"]}), "say the same as block_types"),
        (json!({"layer_types": ["recurrent"]}), "an entry for each of the 5 layers"),
        (json!({"layer_types": ["full_attention"]}), "`layer_types[0]` is \"full_attention\""),
    ] {
        let error = read(types).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_not_said_is_as_the_reference_has_it() {
    use BlockType::{Attention, Recurrent};
    let config = read(json!({"lru_width": null})).unwrap();
    assert_eq!(config.blocks, [Recurrent, Recurrent, Attention, Recurrent, Recurrent]);
    assert_eq!((config.lru_width, config.conv_width, config.head_dim, config.rotary_dim), (32, 4, 8, 4));
    assert_eq!((config.logits_soft_cap, config.rope_theta, config.attention_bias), (30.0, 10_000.0, false));
}

#[test]
fn the_pattern_is_found_under_either_name() {
    use BlockType::{Attention, Recurrent};
    let pattern = json!(["attention", "recurrent"]);
    let expected = [Attention, Recurrent, Attention, Recurrent, Attention];
    assert_eq!(read(json!({"block_types": pattern})).unwrap().blocks, expected);
    assert_eq!(read(json!({"_block_types": pattern})).unwrap().blocks, expected);
    assert_eq!(read(json!({"_block_types": pattern, "block_types": pattern})).unwrap().blocks, expected);
    let error = read(json!({"_block_types": pattern, "block_types": ["recurrent"]})).unwrap_err().to_string();
    assert!(error.contains("`_block_types`") && error.contains("equal to block_types"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let cases = [
        (json!({"model_type": "llama"}), "`model_type` is \"llama\"; this exporter builds \"recurrent_gemma\" only"),
        (json!({"model_type": null}), "`model_type` is missing"),
        (json!({"hidden_size": -1}), "`hidden_size` is -1; it must be a whole number from 1 to 16777216"),
        (json!({"hidden_size": 1e99}), "`hidden_size` is 1e+99"),
        (json!({"hidden_size": "32"}), "`hidden_size` is \"32\""),
        (json!({"hidden_size": null}), "`hidden_size` is missing"),
        (
            json!({"num_attention_heads": 34, "num_key_value_heads": 2}),
            "`num_attention_heads` is 34; must be at most hidden_size (32)",
        ),
        (json!({"num_key_value_heads": 3}), "`num_key_value_heads` is 3; it must divide num_attention_heads, 4"),
        (json!({"lru_width": 30}), "`lru_width` is 30; it must be a multiple of num_attention_heads, 4"),
        (json!({"intermediate_size": 1}), "`intermediate_size` is 1"),
        (json!({"num_hidden_layers": 0}), "`num_hidden_layers` is 0"),
        (json!({"conv1d_width": 1}), "`conv1d_width` is 1; it must be a whole number from 2 to 64"),
        (json!({"block_types": []}), "`block_types` is []; it must be a list"),
        (json!({"block_types": ["recurrent", "mamba"]}), "`block_types[1]` is \"mamba\""),
        (json!({"logits_soft_cap": 0.0}), "`logits_soft_cap` is 0.0"),
        (json!({"attention_bias": 1}), "`attention_bias` is 1; it must be true or false"),
        (json!({"partial_rotary_factor": 2}), "`partial_rotary_factor` is 2"),
        (json!({"head_dim": 3, "partial_rotary_factor": 1.0}), "dimensions are rotated in pairs"),
        (json!({"rope_scaling": {"rope_type": "yarn"}}), "`rope_scaling.rope_type` is \"yarn\""),
        (json!({"rope_parameters": 3}), "`rope_parameters` is a number; it must be an object"),
        (
            json!({"hidden_activation": "relu"}),
            "`hidden_activation` is \"relu\"; only \"gelu_pytorch_tanh\" is supported",
        ),
        (json!({"tie_word_embeddings": false}), "`tie_word_embeddings` is false"),
        (json!({"quantization_config": {}}), "`quantization_config` is an object; quantized checkpoints"),
        (json!({"bos_token_id": 64}), "`bos_token_id` is 64; a token id is a whole number below vocab_size, 64"),
        (json!({"eos_token_id": [1, "x"]}), "`eos_token_id` is \"x\""),
        (
            json!({"attention_window_size": 16_777_216, "num_key_value_heads": 4, "head_dim": 256}),
            "`attention_window_size` is 16777216; with 1024 values of keys a token, it must be at most 1048576",
        ),
    ];
    for (changes, expected) in cases {
        let error = read(changes.clone()).unwrap_err().to_string();
        assert!(error.starts_with("hf/config.json: ") && error.contains(expected), "{changes}: {error}");
    }
    for bytes in ["", "[]", "{", "\u{feff}{}", "null"] {
        let error = ModelConfig::from_json(bytes.as_bytes(), Path::new("config.json")).unwrap_err().to_string();
        assert!(error.contains("is not a JSON object"), "{bytes}: {error}");
    }
}
