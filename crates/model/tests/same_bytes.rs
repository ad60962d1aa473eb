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
fn on_every_machine() {
    let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
    let weights = RandomWeights::new(&config, 1);
    let cases = [
        (WeightFormat::F32, "8c3d6dd709ad49d307c6e1371090bb1acd400d539f6052c13f97754b8a9cc57d"),
        (WeightFormat::Int8, "fae69a6d0177974910c02cb74bac21230bc3ed08fa622417f955809d09ca5b10"),
        (WeightFormat::Int4, "50b5df4d20f0f5067f6474d76f63b2b4125920c655ccef7f6788e1565545b096"),
    ];
    for (format, expected) in cases {
        let mut hash = Sha256::new();
        let plan = GraphPlan::new(&config, &ExportOptions { weights: format, block_size: 64, max_chunk: 16 });
        for shard in plan.shards() {
            let mut bytes = Vec::new();
            shard.write(&weights, &mut bytes, &mut |_| {}).unwrap();
            hash.update(&bytes);
        }
        let rounded = Rounded::new(&weights, &config, format, 64);
        let tokens = reference::golden_tokens(&config, 40);
        for logit in reference::logits(&config, &rounded, &tokens, 4).unwrap() {
            hash.update(logit.to_le_bytes());
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected, "{} and its golden logits", format.word());
    }
}
