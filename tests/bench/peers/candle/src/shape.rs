//! The shape of RecurrentGemma-2B: candle's configuration of it, and the tensors that candle asks for.

use candle_nn::Activation;
use candle_transformers::models::recurrent_gemma::{Config, TemporalBlockType};

/// The configuration of RecurrentGemma-2B.
pub fn config() -> Config {
    use TemporalBlockType::{Attention, Recurrent};
    Config {
        num_hidden_layers: 26,
        vocab_size: 256_000,
        hidden_size: 2560,
        intermediate_size: 15_360,
        num_attention_heads: 10,
        num_key_value_heads: 1,
        head_dim: 256,
        lru_width: Some(2560),
        attention_window_size: 2048,
        conv1d_width: 4,
        logits_soft_cap: 30.0,
        hidden_activation: Activation::GeluPytorchTanh,
        partial_rotary_factor: 0.5,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        block_types: vec![Recurrent, Recurrent, Attention],
        attention_bias: false,
        max_seq_len: 8192,
    }
}

/// What a tensor is for, which decides how it is stored and how large its values are.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A matrix of a product: stored in the format that is measured.
    Matrix,
    /// Norms, biases, gates and convolutions: stored in f32.
    Plain,
}

/// A tensor of the checkpoint by its name and shape, in the order of the file.
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: Kind,
}

struct List(Vec<Entry>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], kind: Kind) {
        self.0.push(Entry { name, shape: shape.to_vec(), kind });
    }

    fn plain(&mut self, name: String, shape: &[usize]) {
        self.add(name, shape, Kind::Plain);
    }

    fn linear(&mut self, name: String, input: usize, output: usize, bias: bool) {
        self.add(format!("{name}.weight"), &[output, input], Kind::Matrix);
        if bias {
            self.plain(format!("{name}.bias"), &[output]);
        }
    }

    fn recurrent(&mut self, config: &Config, block: &str) {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let width = config.lru_width.unwrap_or(hidden);
        let block_width = width / heads;
        self.linear(format!("{block}.linear_y"), hidden, width, true);
        self.linear(format!("{block}.linear_x"), hidden, width, true);
        self.linear(format!("{block}.linear_out"), width, hidden, true);
        self.plain(format!("{block}.conv_1d.weight"), &[width, 1, config.conv1d_width]);
        self.plain(format!("{block}.conv_1d.bias"), &[width]);
        self.plain(format!("{block}.rg_lru.recurrent_param"), &[width]);
        for gate in ["input_gate", "recurrent_gate"] {
            self.plain(format!("{block}.rg_lru.{gate}_weight"), &[heads, block_width, block_width]);
            self.plain(format!("{block}.rg_lru.{gate}_bias"), &[heads, block_width]);
        }
    }

    fn attention(&mut self, config: &Config, block: &str) {
        let hidden = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        self.linear(format!("{block}.q_proj"), hidden, queries, config.attention_bias);
        self.linear(format!("{block}.k_proj"), hidden, keys, config.attention_bias);
        self.linear(format!("{block}.v_proj"), hidden, keys, config.attention_bias);
        self.linear(format!("{block}.o_proj"), queries, hidden, true);
    }
}

/// Every tensor that candle's model asks for.
pub fn tensors(config: &Config) -> Vec<Entry> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size / 2);
    let mut list = List(Vec::new());
    list.add("embed_tokens.weight".into(), &[config.vocab_size, hidden], Kind::Matrix);
    for (layer, kind) in (0..config.num_hidden_layers).zip(config.block_types.iter().cycle()) {
        let layer = format!("layers.{layer}");
        list.plain(format!("{layer}.temporal_pre_norm.weight"), &[hidden]);
        list.plain(format!("{layer}.channel_pre_norm.weight"), &[hidden]);
        let block = format!("{layer}.temporal_block");
        match kind {
            TemporalBlockType::Recurrent => list.recurrent(config, &block),
            TemporalBlockType::Attention => list.attention(config, &block),
        }
        list.linear(format!("{layer}.mlp_block.gate_proj"), hidden, inner, true);
        list.linear(format!("{layer}.mlp_block.up_proj"), hidden, inner, true);
        list.linear(format!("{layer}.mlp_block.down_proj"), inner, hidden, true);
    }
    list.plain("final_norm.weight".into(), &[hidden]);
    list.0
}
