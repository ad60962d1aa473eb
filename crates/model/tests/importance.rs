//! What flows through a column decides how exactly its weights are rounded.

use std::path::Path;

use recurve_model::{ModelConfig, RandomWeights, Rounded, WeightFormat, Weights as _, reference};

const CONFIG: &str = r#"{
    "model_type": "recurrent_gemma", "vocab_size": 300, "hidden_size": 96, "intermediate_size": 384,
    "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "attention_window_size": 10
}"#;

/// One matrix of each kind, with its rows and columns.
const MATRICES: [(&str, usize, usize); 5] = [
    ("model.embed_tokens.weight", 300, 96),
    ("model.layers.0.temporal_block.linear_x.weight", 96, 96),
    ("model.layers.0.mlp_block.down_proj.weight", 96, 192),
    ("model.layers.2.temporal_block.q_proj.weight", 96, 96),
    ("model.layers.3.temporal_block.linear_out.weight", 96, 96),
];

#[test]
fn the_error_that_matters_is_less_than_without_it() {
    let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json")).unwrap();
    let weights = RandomWeights::new(&config, 1);
    let text = reference::golden_tokens(&config, 40);
    let importance = reference::importance(&config, &weights, [text.as_slice(), &text[..7]].into_iter()).unwrap();
    let plain = Rounded::new(&weights, &config, WeightFormat::Int4, 32, None);
    let weighed = Rounded::new(&weights, &config, WeightFormat::Int4, 32, Some(&importance));
    for (name, rows, columns) in MATRICES {
        let matters = importance.of(name).unwrap();
        assert_eq!(matters.len(), columns, "{name}");
        assert!(matters.iter().all(|weight| *weight > 0.0 && weight.is_finite()), "{name}");
        let exact = weights.all(name, rows * columns).unwrap();
        let error = |rounded: &Rounded<'_>| -> f64 {
            let rounded = rounded.all(name, rows * columns).unwrap();
            let pairs = exact.iter().zip(&rounded).zip(matters.iter().cycle());
            pairs.map(|((exact, rounded), weight)| f64::from(*weight) * f64::from(exact - rounded).powi(2)).sum()
        };
        let (before, after) = (error(&plain), error(&weighed));
        assert!(after < before, "{name}: {after:e} is not less than {before:e}");
    }
    assert!(importance.of("model.final_norm.weight").is_none());
}
