//! The checkpoints in `tests/reference/data`, and what Hugging Face's implementation says of them.

use std::path::{Path, PathBuf};

use recurve_model::{Checkpoint, ModelConfig};
use safetensors::SafeTensors;

/// One random checkpoint and Hugging Face's answers for it.
pub struct Reference {
    /// Its folder.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Checkpoint,
    /// A sequence at least six windows long.
    pub tokens: Vec<u32>,
    /// The logits after each token, `[tokens, vocab]`, in fp32.
    pub logits: Vec<f32>,
    /// A prompt.
    pub prompt: Vec<u32>,
    /// Its greedy continuation.
    pub continuation: Vec<u32>,
}

impl Reference {
    /// Name of its folder.
    pub fn name(&self) -> String {
        self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn read(dir: PathBuf) -> Self {
        let config = ModelConfig::read(&dir.join("config.json")).expect("a reference configuration");
        let weights = Checkpoint::open(&dir, &config).expect("a reference checkpoint");
        let expected = Expected::read(&dir.join("expected.safetensors"));
        let reference = Self {
            config,
            weights,
            tokens: expected.ids("tokens"),
            logits: expected.numbers("logits"),
            prompt: expected.ids("prompt"),
            continuation: expected.ids("continuation"),
            dir,
        };
        assert!(reference.tokens.len() >= 6 * reference.config.window, "{}: six windows long", reference.name());
        reference
    }
}

/// The committed demo model, and what Hugging Face's implementation says of it.
pub struct Demo {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Checkpoint,
    /// A conversation more than six windows long.
    pub tokens: Vec<u32>,
    /// After which of them there are logits.
    pub kept: Vec<u32>,
    /// These, `[kept, vocab]`, in fp32.
    pub logits: Vec<f32>,
}

/// Of `tests/reference/demo-model.safetensors`.
pub fn demo() -> Demo {
    let dir = repository().join("deploy/demo-model");
    let config = ModelConfig::read(&dir.join("config.json")).expect("the demo model's configuration");
    let weights = Checkpoint::open(&dir, &config).expect("the demo model");
    let expected = Expected::read(&repository().join("tests/reference/demo-model.safetensors"));
    let demo = Demo {
        config,
        weights,
        tokens: expected.ids("tokens"),
        kept: expected.ids("kept"),
        logits: expected.numbers("logits"),
    };
    assert!(demo.tokens.len() > 6 * demo.config.window, "six windows long");
    demo
}

/// A file of tensors, all of which the caller knows.
struct Expected(Vec<u8>);

impl Expected {
    fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn data(&self, name: &str) -> Vec<u8> {
        let tensors = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        tensors.tensor(name).expect(name).data().to_vec()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.data(name).chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.data(name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    }
}

/// All of them, by name.
pub fn all() -> Vec<Reference> {
    let data = repository().join("tests/reference/data");
    let mut dirs: Vec<_> =
        std::fs::read_dir(data).expect("tests/reference/data").map(|entry| entry.expect("an entry").path()).collect();
    dirs.sort();
    assert!(dirs.len() >= 6, "the reference checkpoints are in the repository");
    dirs.into_iter().map(Reference::read).collect()
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The largest difference of two runs of numbers.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "as many numbers on both sides");
    // NaN on either side must not pass for a small difference.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d.is_nan() { f32::INFINITY } else { d.max(max) })
}
