//! An export gives the same bytes on every machine: the digests below were made on one and must come out on all. A change
//! of the format changes them knowingly; a machine never may.

use std::path::Path;

use recurve_model::{ExportOptions, GraphPlan, ModelConfig, RandomWeights, Rounded, WeightFormat, reference};
use sha2::{Digest, Sha256};

const CONFIG: &str = r#"{
    "model_type": "recurrent_gemma", "vocab_size": 300, "hidden_size": 96, "intermediate_size": 384,
    "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "attention_window_size": 10
}"#;

#[test]
fn rounded_by_what_matters_too() {
    let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
    let weights = RandomWeights::new(&config, 1);
    let tokens = reference::golden_tokens(&config, 40);
    let importance = reference::importance(&config, &weights, std::iter::once(tokens.as_slice())).unwrap();
    let plan = GraphPlan::new(&config, &ExportOptions { weights: WeightFormat::Int4, block_size: 64, max_chunk: 16 });
    let mut hash = Sha256::new();
    for shard in plan.shards() {
        let mut bytes = Vec::new();
        shard.write(&weights, Some(&importance), &mut bytes, &mut |_| {}).unwrap();
        hash.update(&bytes);
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "ff0d7ca7e33cbaebb0cbdca0c64f5d23653c12f8ff06144a2a796b20f1fcd53a");
}

#[test]
fn on_every_machine() {
    let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
    let weights = RandomWeights::new(&config, 1);
    let cases = [
        (WeightFormat::F32, "bd8d25ab103cbbe97c42acba1c092e50244d71b4150fcd7145a5a44accc8407f"),
        (WeightFormat::Int8, "c28e17abcf305c7883f394979493d2ff6ee006dacdf6aff6b79f8fe7fdc0f239"),
        (WeightFormat::Int4, "59dc28e4f35c9d2b4b43e1baec0deab65112397690a012ff0666e5e63960ffc5"),
    ];
    for (format, expected) in cases {
        let mut hash = Sha256::new();
        let plan = GraphPlan::new(&config, &ExportOptions { weights: format, block_size: 64, max_chunk: 16 });
        for shard in plan.shards() {
            let mut bytes = Vec::new();
            shard.write(&weights, None, &mut bytes, &mut |_| {}).unwrap();
            hash.update(&bytes);
        }
        let rounded = Rounded::new(&weights, &config, format, 64, None);
        let tokens = reference::golden_tokens(&config, 40);
        for logit in reference::logits(&config, &rounded, &tokens, 4).unwrap() {
            hash.update(logit.to_le_bytes());
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected, "{} and its golden logits", format.word());
    }
}
