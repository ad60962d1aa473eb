//! Quantized graphs give what the oracle gives on the dequantized weights, up to the rounding of activations to 8 bits.

use std::path::Path;

use recurve_model::{ModelConfig, RandomWeights, Rounded, WeightFormat, reference};
use recurve_runtime::KernelChoice;
use recurve_tests::graph;

/// Root mean square difference of the logits over their root mean square. The products round activations to 8 bits in
/// blocks (accuracy level 4), 0.5 % each; the logits collect it over the layers.
const TOLERANCE: f64 = 0.03;

fn config(hidden: usize) -> ModelConfig {
    let text = format!(
        r#"{{"model_type": "recurrent_gemma", "vocab_size": 260, "hidden_size": {hidden}, "intermediate_size": 768,
            "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_window_size": 12}}"#
    );
    ModelConfig::from_json(text.as_bytes(), Path::new("config.json")).unwrap()
}

#[test]
fn in_every_format_and_block_size() {
    // 192 and 384 are multiples of 64 and of 128: a matrix of the first takes a smaller block than was asked for.
    for hidden in [128, 192] {
        let config = config(hidden);
        let weights = RandomWeights::new(&config, 7);
        let tokens = reference::golden_tokens(&config, 80);
        for format in [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4] {
            for block_size in [32, 64, 128] {
                let rounded = Rounded::new(&weights, &config, format, block_size, None);
                let expected = reference::logits(&config, &rounded, &tokens, tokens.len()).unwrap();
                let mut graph = graph::export(&config, &weights, format, block_size, 16, 2, KernelChoice::Recurve);
                for chunk in [1, 5, 16] {
                    graph.model.reset(1);
                    let logits = graph.read(1, 0, &tokens, chunk);
                    let sum = |values: &mut dyn Iterator<Item = f32>| {
                        values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>()
                    };
                    let error = sum(&mut logits.iter().zip(&expected).map(|(a, b)| a - b));
                    let relative = (error / sum(&mut expected.iter().copied())).sqrt();
                    println!("{hidden} {} block {block_size} chunk {chunk}: {relative:.2e}", format.word());
                    let tolerance = if format == WeightFormat::F32 { 1e-5 } else { TOLERANCE };
                    assert!(relative <= tolerance, "{} block {block_size} chunk {chunk}: {relative}", format.word());
                }
            }
        }
    }
}
