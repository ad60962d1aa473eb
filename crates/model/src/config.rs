//! What a checkpoint's `config.json` says, in the spelling of transformers 4 or 5, checked once and then only read.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::absent;
use crate::fields::{Fields, kind};

use BlockType::{Attention, Recurrent};

/// Which kind of temporal mixing a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// Convolution and RG-LRU.
    Recurrent,
    /// Local attention over the window.
    Attention,
}

/// The shape of a RecurrentGemma model. Every value has been checked: see [`ModelConfig::from_json`].
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP: half of the configuration's `intermediate_size`.
    pub mlp_width: usize,
    /// Each layer's temporal block, `block_types` repeated over `num_hidden_layers`.
    pub blocks: Vec<BlockType>,
    /// Query heads, and the number of blocks in the block-diagonal gates.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one attention head.
    pub head_dim: usize,
    /// Width of the recurrence; a multiple of `heads`.
    pub lru_width: usize,
    /// Tokens that attention looks back, the current one included.
    pub window: usize,
    /// Taps of the temporal convolution; its state holds one less.
    pub conv_width: usize,
    /// Logits are `cap * tanh(x / cap)`.
    pub logits_soft_cap: f32,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Leading dimensions of each head that are rotated; even, at most `head_dim`.
    pub rotary_dim: usize,
    /// What the exponents of the rotary frequencies are divided by: `rotary_dim`, or one less where the head's part that
    /// the configuration gives is odd.
    pub rotary_span: usize,
    /// Whether q, k and v have biases (the output projection always has one).
    pub attention_bias: bool,
    /// First token of every text.
    pub bos_token: Option<u32>,
    /// Tokens that end a text.
    pub end_tokens: Vec<u32>,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a JSON object.
    #[error("{}: is not a JSON object: {reason}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A field that has no default is missing.
    #[error("{}: `{field}` is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// A field's value cannot be used.
    #[error("{}: `{field}` is {value}; {allowed}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What it says.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
}

/// Largest `config.json` that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Largest value of any size in a configuration; the product of two still fits in memory arithmetic.
const MAX_SIZE: u64 = 1 << 24;
const MAX_LAYERS: u64 = 1024;
/// Most values of one layer's keys in a window: 4 GiB in f32 a conversation.
const MAX_RING: u64 = 1 << 30;

impl ModelConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 1 MB, or [`ModelConfig::from_json`] refuses it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let not_json = |reason| ConfigError::NotJson { path: path.to_owned(), reason };
        if let Some(reason) = absent::dangling(path) {
            return Err(not_json(format!("it {reason}")));
        }
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(not_json(format!("it has {size} bytes, and a configuration at most {MAX_CONFIG_BYTES}")));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        if absent::is_pointer(&bytes) {
            return Err(not_json(format!("it {}", absent::POINTER)));
        }
        Self::from_json(&bytes, path)
    }

    /// Checks a configuration; `path` is only used in errors.
    ///
    /// # Errors
    /// The first field that is missing, of the wrong type, out of range, or that asks for something which this
    /// exporter does not build (another architecture, activation, rope scaling, or an untied head).
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self, ConfigError> {
        let not_json = |reason: String| ConfigError::NotJson { path: path.to_owned(), reason };
        let object = match serde_json::from_slice(bytes) {
            Ok(Value::Object(object)) => object,
            Ok(other) => return Err(not_json(format!("it is {}", kind(&other)))),
            Err(error) => return Err(not_json(error.to_string())),
        };
        Fields { object: &object, path }.config()
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Width of one block of the block-diagonal gates.
    pub fn gate_width(&self) -> usize {
        self.lru_width / self.heads
    }

    /// Factor on the embeddings: the square root of the hidden size, rounded to bfloat16 as the reference does.
    pub fn embedding_scale(&self) -> f32 {
        // Sizes are at most 2^24, which f32 holds exactly.
        half::bf16::from_f32((self.hidden_size as f32).sqrt()).to_f32()
    }

    /// The rotary frequencies, `rotary_dim / 2` of them, rounded to f32 as the reference does.
    pub fn rotary_frequencies(&self) -> Vec<f32> {
        (0..self.rotary_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.rotary_span as f32;
                (1.0 / libm::pow(self.rope_theta, f64::from(exponent))) as f32
            })
            .collect()
    }

    /// Number of trained values, the tied embedding counted once.
    pub fn parameters(&self) -> u64 {
        crate::shapes::tensors(self).iter().map(|t| t.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
    }
}

impl Fields<'_> {
    fn config(&self) -> Result<ModelConfig, ConfigError> {
        self.architecture()?;
        let hidden_size = self.size("hidden_size", None, 1, MAX_SIZE)?;
        let heads = self.size("num_attention_heads", None, 1, MAX_SIZE)?;
        let kv_heads = self.size("num_key_value_heads", Some(heads), 1, MAX_SIZE)?;
        if heads % kv_heads != 0 {
            return Err(self.invalid(
                "num_key_value_heads",
                kv_heads,
                format!("it must divide num_attention_heads, {heads}"),
            ));
        }
        if heads > hidden_size {
            return Err(self.invalid(
                "num_attention_heads",
                heads,
                format!("must be at most hidden_size ({hidden_size})"),
            ));
        }
        // Rounded down, as the reference does.
        let head_dim = self.size("head_dim", Some(hidden_size / heads), 1, MAX_SIZE)?;
        let lru_width = self.size("lru_width", Some(hidden_size), 1, MAX_SIZE)?;
        if lru_width % heads != 0 {
            return Err(self.invalid(
                "lru_width",
                lru_width,
                format!("it must be a multiple of num_attention_heads, {heads}"),
            ));
        }
        // Rounded down, as the reference does.
        let mlp_width = self.size("intermediate_size", None, 2, MAX_SIZE)? / 2;
        let (rope_theta, rotary_span) = self.rope(head_dim)?;
        let window = self.size("attention_window_size", None, 1, MAX_SIZE)?;
        let row = (kv_heads * head_dim) as u64;
        if window as u64 * row > MAX_RING {
            return Err(self.invalid(
                "attention_window_size",
                window,
                format!("with {row} values of keys a token, it must be at most {}", MAX_RING / row),
            ));
        }
        Ok(ModelConfig {
            vocab_size: self.size("vocab_size", None, 2, MAX_SIZE)?,
            hidden_size,
            mlp_width,
            blocks: self.blocks()?,
            heads,
            kv_heads,
            head_dim,
            lru_width,
            window,
            conv_width: self.size("conv1d_width", Some(4), 2, 64)?,
            logits_soft_cap: self.number("logits_soft_cap", Some(30.0), 1e-3, 1e6)? as f32,
            rms_norm_eps: self.number("rms_norm_eps", Some(1e-6), 0.0, 1.0)? as f32,
            rope_theta,
            rotary_dim: rotary_span.next_multiple_of(2),
            rotary_span,
            attention_bias: self.flag("attention_bias", false)?,
            bos_token: self.tokens("bos_token_id")?.first().copied(),
            end_tokens: self.tokens("eos_token_id")?,
        })
    }

    /// Refuses what this exporter does not build, before any size is looked at.
    fn architecture(&self) -> Result<(), ConfigError> {
        match self.get("model_type") {
            None => return Err(self.missing("model_type")),
            Some(Value::String(name)) if name == "recurrent_gemma" => {}
            Some(other) => {
                return Err(self.invalid("model_type", other, "this exporter builds \"recurrent_gemma\" only"));
            }
        }
        for field in ["hidden_activation", "hidden_act"] {
            match self.get(field) {
                None => {}
                Some(Value::String(name)) if name == "gelu_pytorch_tanh" => {}
                Some(other) => {
                    return Err(self.invalid(field, other, "only \"gelu_pytorch_tanh\" is supported"));
                }
            }
        }
        if !self.flag("tie_word_embeddings", true)? {
            return Err(self.invalid(
                "tie_word_embeddings",
                false,
                "only true is supported: RecurrentGemma's head is its embedding",
            ));
        }
        if let Some(other) = self.get("quantization_config") {
            return Err(self.invalid(
                "quantization_config",
                kind(other),
                "quantized checkpoints are not supported: give one in F32, F16 or BF16",
            ));
        }
        Ok(())
    }

    /// Rotary base and the dimensions that the configuration wants rotated, from `rope_parameters` (transformers 5) or the top level (4).
    fn rope(&self, head_dim: usize) -> Result<(f64, usize), ConfigError> {
        let mut nested = None;
        // transformers 5 also takes the older name, and prefers it.
        for field in ["rope_parameters", "rope_scaling"] {
            match self.get(field) {
                None => {}
                Some(Value::Object(object)) => nested = Some((field, Fields { object, path: self.path })),
                Some(other) => return Err(self.invalid(field, kind(other), "it must be an object")),
            }
        }
        if let Some((field, nested)) = &nested {
            match nested.get("rope_type").or_else(|| nested.get("type")) {
                None => {}
                Some(Value::String(name)) if name == "default" => {}
                Some(other) => {
                    let field = format!("{field}.rope_type");
                    return Err(self.invalid(
                        &field,
                        other,
                        "only the unscaled \"default\" rotary embedding is supported",
                    ));
                }
            }
        }
        let number = |field: &'static str, default, least, most| match &nested {
            Some((_, nested)) if nested.has(field) => nested.number(field, None, least, most),
            _ => self.number(field, Some(default), least, most),
        };
        let theta = number("rope_theta", 10_000.0, 1.0, 1e12)?;
        let factor = number("partial_rotary_factor", 0.5, 0.0, 1.0)?;
        // Truncated, as the reference does; an odd part is rotated together with the dimension after it.
        let span = (head_dim as f64 * factor) as usize;
        if span.next_multiple_of(2) > head_dim {
            return Err(self.invalid(
                "partial_rotary_factor",
                factor,
                format!("of a head of {head_dim} it rotates {span} dimensions, and dimensions are rotated in pairs"),
            ));
        }
        Ok((theta, span))
    }

    fn blocks(&self) -> Result<Vec<BlockType>, ConfigError> {
        let layers = self.size("num_hidden_layers", None, 1, MAX_LAYERS)?;
        // Some versions of transformers 4 write the pattern under a name with an underscore, some under both.
        let field = match (self.get("block_types"), self.get("_block_types")) {
            (Some(one), Some(other)) if one != other => {
                return Err(self.invalid("_block_types", other, format!("it must be equal to block_types, {one}")));
            }
            (None, Some(_)) => "_block_types",
            _ => "block_types",
        };
        let pattern = self.types(field)?.map(|pattern| cycle(&pattern, layers));
        // transformers 5 has a list of all layers in its own words, which code for several architectures may save.
        let Some(listed) = self.types("layer_types")? else {
            return Ok(pattern.unwrap_or_else(|| cycle(&[Recurrent, Recurrent, Attention], layers)));
        };
        let agrees = listed.len() == layers && pattern.is_none_or(|pattern| pattern == listed);
        let given = self.get("layer_types").map(Value::to_string).unwrap_or_default();
        let allowed = format!("it must have an entry for each of the {layers} layers, and say the same as block_types");
        if agrees { Ok(listed) } else { Err(self.invalid("layer_types", given, allowed)) }
    }

    /// A list of kinds of layers; none where the field is absent.
    fn types(&self, field: &str) -> Result<Option<Vec<BlockType>>, ConfigError> {
        let allowed = "it must be a list of \"recurrent\" and \"attention\"";
        let one = |(i, item): (usize, &Value)| match item.as_str() {
            Some("recurrent" | "linear_attention") => Ok(Recurrent),
            Some("attention" | "sliding_attention") => Ok(Attention),
            _ => Err(self.invalid(&format!("{field}[{i}]"), item, allowed)),
        };
        match self.get(field) {
            None => Ok(None),
            Some(Value::Array(items)) if !items.is_empty() => {
                items.iter().enumerate().map(one).collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(self.invalid(field, other, allowed)),
        }
    }

    /// One token id, a list of them, or none.
    fn tokens(&self, field: &'static str) -> Result<Vec<u32>, ConfigError> {
        let vocab = self.size("vocab_size", None, 2, MAX_SIZE)? as u64;
        let one = |value: &Value| match value.as_u64() {
            Some(id) if id < vocab => Ok(id as u32),
            _ => Err(self.invalid(field, value, format!("a token id is a whole number below vocab_size, {vocab}"))),
        };
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(one).collect(),
            Some(value) => Ok(vec![one(value)?]),
        }
    }
}

fn cycle(pattern: &[BlockType], layers: usize) -> Vec<BlockType> {
    pattern.iter().copied().cycle().take(layers).collect()
}
