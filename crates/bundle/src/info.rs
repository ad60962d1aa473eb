//! `recurve.json`: what the daemon needs to know of the model before it loads the graph.

use serde::{Deserialize, Serialize};

use crate::error::BundleError;
use crate::json;
use crate::layout::file;

/// The format of `recurve.json` that this version writes and reads.
pub const INFO_FORMAT: u32 = 1;
/// The only architecture so far.
pub const ARCHITECTURE: &str = "recurrent_gemma";

/// Most bytes of a model's name.
pub const MAX_NAME: usize = 128;
/// Which names [`valid_name`] takes, in words.
pub const NAME_ALLOWED: &str = "1 to 128 letters, digits, `.`, `_` and `-`, the first a letter or digit";

/// More than any device serves: bounds that keep later arithmetic from overflowing.
const MOST_LAYERS: u32 = 4_096;
const MOST_VALUES: u64 = 1 << 32;

/// The file `recurve.json`. Unknown fields are ignored; a change that an older reader would misunderstand raises `format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// [`INFO_FORMAT`].
    pub format: u32,
    /// The model's name: [`NAME_ALLOWED`].
    pub name: String,
    /// [`ARCHITECTURE`].
    pub architecture: String,
    /// Number of parameters, the tied embedding counted once.
    pub parameters: u64,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Number of layers.
    pub layers: u32,
    /// Number of token ids: they are 0 to `vocab_size - 1`.
    pub vocab_size: u32,
    /// How many tokens back an attention layer sees, the token itself included.
    pub window: u32,
    /// Most tokens in one step of a row; the rings have `window + max_chunk` slots.
    pub max_chunk: u32,
    /// How products' weights are stored: `f32`, `int8` or `int4`.
    pub weights: String,
    /// Values that share one scale, for `int8` and `int4`; a tensor whose rows it does not divide uses a smaller block.
    pub block_size: Option<u32>,
    /// Every carried tensor, in the order of the graph's inputs.
    pub states: Vec<StateInfo>,
    /// The token that begins every sequence, if the model has one.
    pub bos_token: Option<u32>,
    /// The tokens that end an answer; may be empty.
    pub end_tokens: Vec<u32>,
}

/// One carried tensor: the graph's input `name` and output `name.out`, both f32 `[rows, shape…]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// Kind and layer: `conv.0`, `lru.0`, `k.2`, `v.2`.
    pub name: String,
    /// What it holds.
    pub kind: StateKind,
    /// The layer it belongs to.
    pub layer: u32,
    /// Its shape for one row; values are f32.
    pub shape: Vec<u32>,
}

/// What a carried tensor holds. All start as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// Last inputs of a recurrent layer's convolution, `[taps - 1, lru_width]`.
    Conv,
    /// Hidden state of a recurrent layer, `[lru_width]`.
    Lru,
    /// Ring of an attention layer's keys, `[kv_heads, window + max_chunk, head_dim]`.
    K,
    /// Ring of an attention layer's values, the same shape.
    V,
}

impl StateKind {
    /// As in names and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Lru => "lru",
            Self::K => "k",
            Self::V => "v",
        }
    }

    fn dimensions(self) -> usize {
        match self {
            Self::Conv => 2,
            Self::Lru => 1,
            Self::K | Self::V => 3,
        }
    }
}

impl StateInfo {
    /// Number of f32 values of one row.
    pub fn values(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &size| product.saturating_mul(u64::from(size)))
    }

    /// Bytes of one row.
    pub fn bytes(&self) -> u64 {
        self.values().saturating_mul(4)
    }
}

impl ModelInfo {
    /// Bytes that one session carries from step to step.
    pub fn state_bytes(&self) -> u64 {
        self.states.iter().fold(0, |sum: u64, state| sum.saturating_add(state.bytes()))
    }

    /// Parses and checks the file's bytes.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        json::check_format(file::INFO, bytes, INFO_FORMAT)?;
        let info: Self = json::parse(file::INFO, bytes)?;
        info.check()?;
        Ok(info)
    }

    /// Checks every field against the others.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), BundleError> {
        require(valid_name(&self.name), "name", &self.name, NAME_ALLOWED)?;
        require(self.architecture == ARCHITECTURE, "architecture", &self.architecture, ARCHITECTURE)?;
        require(matches!(self.weights.as_str(), "f32" | "int8" | "int4"), "weights", &self.weights, "f32, int8, int4")?;
        let block = self.block_size.map_or("null".to_owned(), |size| size.to_string());
        if self.weights == "f32" {
            require(self.block_size.is_none(), "block_size", block, "null with f32 weights")?;
        } else {
            let good = self.block_size.is_some_and(|size| matches!(size, 32 | 64 | 128));
            require(good, "block_size", block, "32, 64, 128 with quantized weights")?;
        }
        require((1..=MOST_LAYERS).contains(&self.layers), "layers", self.layers, "1 to 4096")?;
        let size = |value: u32| (1..=1 << 24).contains(&value);
        for (field, value) in [
            ("hidden_size", self.hidden_size),
            ("vocab_size", self.vocab_size),
            ("window", self.window),
            ("max_chunk", self.max_chunk),
        ] {
            require(size(value), field, value, "1 to 16777216")?;
        }
        self.check_states()?;
        let token = |field: String, token: u32| {
            let allowed = format!("a token below vocab_size ({})", self.vocab_size);
            require(token < self.vocab_size, &field, token, &allowed)
        };
        if let Some(bos) = self.bos_token {
            token("bos_token".to_owned(), bos)?;
        }
        for (index, &end) in self.end_tokens.iter().enumerate() {
            token(format!("end_tokens[{index}]"), end)?;
        }
        Ok(())
    }

    fn check_states(&self) -> Result<(), BundleError> {
        require(!self.states.is_empty(), "states", "[]", "at least one carried tensor")?;
        for (index, state) in self.states.iter().enumerate() {
            let field = |name: &str| format!("states[{index}].{name}");
            require(
                state.layer < self.layers,
                &field("layer"),
                state.layer,
                &format!("a layer below layers ({})", self.layers),
            )?;
            let name = format!("{}.{}", state.kind.as_str(), state.layer);
            require(state.name == name, &field("name"), &state.name, &format!("kind and layer: {name}"))?;
            let fresh = !self.states[..index].iter().any(|other| other.name == state.name);
            require(fresh, &field("name"), &state.name, "each state once")?;
            let shape = format!("{:?}", state.shape);
            let dimensions = state.kind.dimensions();
            let bounded = (1..=MOST_VALUES).contains(&state.values());
            require(
                state.shape.len() == dimensions && bounded,
                &field("shape"),
                &shape,
                &format!("{dimensions} positive sizes with a product of at most {MOST_VALUES}"),
            )?;
            if matches!(state.kind, StateKind::K | StateKind::V) {
                let slots = self.window + self.max_chunk;
                let allowed = format!("window + max_chunk = {slots} slots in the middle");
                require(state.shape[1] == slots, &field("shape"), &shape, &allowed)?;
            }
        }
        Ok(())
    }
}

/// Whether a model may have this name. Names are shown, compared and typed: they stay within a safe set.
pub fn valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(valid_in_name)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether a model's name may have this character, but for the first.
pub fn valid_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn require(good: bool, field: &str, value: impl ToString, allowed: &str) -> Result<(), BundleError> {
    if good {
        return Ok(());
    }
    Err(BundleError::Value {
        file: file::INFO.to_owned(),
        field: field.to_owned(),
        value: json::shown(&value.to_string()),
        allowed: allowed.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ModelInfo {
        let state = |kind: StateKind, layer: u32, shape: &[u32]| StateInfo {
            name: format!("{}.{layer}", kind.as_str()),
            kind,
            layer,
            shape: shape.to_vec(),
        };
        ModelInfo {
            format: INFO_FORMAT,
            name: "tiny".to_owned(),
            architecture: ARCHITECTURE.to_owned(),
            parameters: 1_000,
            hidden_size: 8,
            layers: 2,
            vocab_size: 32,
            window: 4,
            max_chunk: 3,
            weights: "int4".to_owned(),
            block_size: Some(32),
            states: vec![
                state(StateKind::Conv, 0, &[3, 8]),
                state(StateKind::Lru, 0, &[8]),
                state(StateKind::K, 1, &[1, 7, 4]),
                state(StateKind::V, 1, &[1, 7, 4]),
            ],
            bos_token: Some(2),
            end_tokens: vec![1, 31],
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let info = info();
        let bytes = serde_json::to_vec(&info).unwrap();
        assert_eq!(ModelInfo::parse(&bytes).unwrap(), info);
        assert_eq!(info.state_bytes(), 4 * (24 + 8 + 28 + 28));
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut ModelInfo);
        let cases: [(&str, Change); 16] = [
            ("name", |i| i.name = "a/b".to_owned()),
            ("name", |i| i.name.clear()),
            ("architecture", |i| i.architecture = "llama".to_owned()),
            ("weights", |i| i.weights = "int3".to_owned()),
            ("block_size", |i| i.block_size = None),
            ("block_size", |i| i.block_size = Some(48)),
            ("layers", |i| i.layers = 0),
            ("vocab_size", |i| i.vocab_size = 0),
            ("window", |i| i.window = u32::MAX),
            ("max_chunk", |i| i.max_chunk = 0),
            ("states", |i| i.states.clear()),
            ("states[2].layer", |i| i.states[2].layer = 2),
            ("states[3].name", |i| i.states[3] = i.states[2].clone()),
            ("states[0].shape", |i| i.states[0].shape = vec![u32::MAX; 2]),
            ("states[2].shape", |i| i.states[2].shape[1] = 8),
            ("end_tokens[1]", |i| i.end_tokens[1] = 32),
        ];
        for (expected, change) in cases {
            let mut info = info();
            change(&mut info);
            let Err(BundleError::Value { field, .. }) = info.check() else {
                panic!("{expected} passed");
            };
            assert_eq!(field, expected);
        }
    }

    #[test]
    fn another_format_is_refused_by_number_whatever_else_it_holds() {
        let error = ModelInfo::parse(br#"{"format": 2, "layers": "many"}"#).unwrap_err();
        assert!(matches!(error, BundleError::UnsupportedFormat { found: 2, supported: 1, .. }), "{error}");
    }
}
