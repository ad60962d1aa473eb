//! The oracle gives the logits of Hugging Face's own implementation, for every configuration in `tests/reference`.

use std::path::Path;

use recurve_model::{Checkpoint, ModelConfig, reference};
use safetensors::SafeTensors;

#[test]
fn the_oracle_equals_hugging_face() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/data");
    let mut dirs: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(dirs.len() >= 6, "the reference checkpoints are in the repository");
    for dir in dirs {
        let config = ModelConfig::read(&dir.join("config.json")).unwrap();
        let weights = Checkpoint::open(&dir, &config).unwrap();
        let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| expected.tensor(name).unwrap().data().to_vec();
        let tokens: Vec<u32> =
            numbers("tokens").chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        let want: Vec<f32> =
            numbers("logits").chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert!(tokens.len() >= 6 * config.window, "six windows long");
        let have = reference::logits(&config, &weights, &tokens, tokens.len()).unwrap();
        let worst = have.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        println!("{}: {worst:e}", dir.file_name().unwrap().display());
        assert!(have.len() == want.len() && worst <= 1e-4, "{}: {worst:e}", dir.display());
    }
}
