//! Plain data: the name and shape of every tensor of a checkpoint, and of every tensor that is carried from step to step.

use crate::config::{BlockType, ModelConfig};

/// A tensor of a checkpoint, by its Hugging Face name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorShape {
    /// As in the safetensors files.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
}

impl TensorShape {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values; no tensor of a valid configuration is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every tensor that a checkpoint of this configuration must hold, in layer order.
pub fn tensors(config: &ModelConfig) -> Vec<TensorShape> {
    let hidden = config.hidden_size;
    let mut list = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        list.push(TensorShape { name, shape: shape.to_vec() });
    };
    add(EMBEDDING.to_owned(), &[config.vocab_size, hidden]);
    for (layer, block) in config.blocks.iter().enumerate() {
        let name = |part: &str| layer_tensor(layer, part);
        add(name("temporal_pre_norm.weight"), &[hidden]);
        match block {
            BlockType::Recurrent => {
                let (width, heads, gate) = (config.lru_width, config.heads, config.gate_width());
                for side in ["linear_y", "linear_x"] {
                    add(name(&format!("temporal_block.{side}.weight")), &[width, hidden]);
                    add(name(&format!("temporal_block.{side}.bias")), &[width]);
                }
                add(name("temporal_block.conv_1d.weight"), &[width, 1, config.conv_width]);
                add(name("temporal_block.conv_1d.bias"), &[width]);
                for side in ["input", "recurrent"] {
                    add(name(&format!("temporal_block.rg_lru.{side}_gate_weight")), &[heads, gate, gate]);
                    add(name(&format!("temporal_block.rg_lru.{side}_gate_bias")), &[heads, gate]);
                }
                add(name("temporal_block.rg_lru.recurrent_param"), &[width]);
                add(name("temporal_block.linear_out.weight"), &[hidden, width]);
                add(name("temporal_block.linear_out.bias"), &[hidden]);
            }
            BlockType::Attention => {
                let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
                for (side, rows) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
                    add(name(&format!("temporal_block.{side}.weight")), &[rows, hidden]);
                    if config.attention_bias {
                        add(name(&format!("temporal_block.{side}.bias")), &[rows]);
                    }
                }
                add(name("temporal_block.o_proj.weight"), &[hidden, queries]);
                add(name("temporal_block.o_proj.bias"), &[hidden]);
            }
        }
        add(name("channel_pre_norm.weight"), &[hidden]);
        for (side, rows, columns) in [
            ("gate_proj", config.mlp_width, hidden),
            ("up_proj", config.mlp_width, hidden),
            ("down_proj", hidden, config.mlp_width),
        ] {
            add(name(&format!("mlp_block.{side}.weight")), &[rows, columns]);
            add(name(&format!("mlp_block.{side}.bias")), &[rows]);
        }
    }
    add(FINAL_NORM.to_owned(), &[hidden]);
    list
}

/// Name of the embedding, which is also the head.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm.
pub const FINAL_NORM: &str = "model.final_norm.weight";

/// Name of a layer's tensor.
pub fn layer_tensor(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// What a carried tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// The convolution's last inputs, `[conv_width - 1, lru_width]`, oldest first. Zero before the first token.
    Conv,
    /// The recurrence's hidden state, `[lru_width]`. Any finite value before the first token; zero by convention.
    Lru,
    /// Keys, already rotated: a ring `[kv_heads, window + max_chunk, head_dim]`; the token at position `p` lies in slot
    /// `p mod (window + max_chunk)`. Any finite value before it is first written: the mask hides it.
    Keys,
    /// Values, a ring as the keys.
    Values,
}

impl StateKind {
    /// The word in names of graph inputs and in bundles.
    pub fn word(self) -> &'static str {
        match self {
            StateKind::Conv => "conv",
            StateKind::Lru => "lru",
            StateKind::Keys => "k",
            StateKind::Values => "v",
        }
    }
}

/// A tensor that is carried from step to step, f32, one for each row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpec {
    /// The graph's input; its output is `<name>.out`.
    pub name: String,
    /// What it holds.
    pub kind: StateKind,
    /// Which layer it belongs to.
    pub layer: usize,
    /// Shape of one row.
    pub shape: Vec<usize>,
}

/// Shape of one row of a carried tensor of this kind.
pub fn state_shape(config: &ModelConfig, max_chunk: usize, kind: StateKind) -> Vec<usize> {
    match kind {
        StateKind::Conv => vec![config.conv_width - 1, config.lru_width],
        StateKind::Lru => vec![config.lru_width],
        StateKind::Keys | StateKind::Values => vec![config.kv_heads, config.window + max_chunk, config.head_dim],
    }
}

/// Every carried tensor, in the order of the graph's inputs.
pub fn states(config: &ModelConfig, max_chunk: usize) -> Vec<StateSpec> {
    let of_layer = |(layer, block): (usize, &BlockType)| {
        let kinds = match block {
            BlockType::Recurrent => [StateKind::Conv, StateKind::Lru],
            BlockType::Attention => [StateKind::Keys, StateKind::Values],
        };
        kinds.map(|kind| StateSpec {
            name: format!("{}.{layer}", kind.word()),
            kind,
            layer,
            shape: state_shape(config, max_chunk, kind),
        })
    };
    config.blocks.iter().enumerate().flat_map(of_layer).collect()
}
