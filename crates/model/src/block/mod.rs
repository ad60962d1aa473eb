//! The building blocks of the network: each file emits the nodes of one of them.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod embed;
pub(crate) mod head;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod position;
pub(crate) mod recurrent;
pub(crate) mod rg_lru;

use crate::config::ModelConfig;
use crate::graph::ExportOptions;
use crate::onnx::builder::{Builder, Val};
use crate::onnx::proto::DataType;
use crate::shapes::{self, StateKind};
use crate::shard::Shards;

/// What every block writes into.
pub(crate) struct Emit<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) options: &'a ExportOptions,
    pub(crate) g: Builder,
    pub(crate) shards: Shards,
}

impl Emit<'_> {
    /// Declares a carried tensor of this layer as input and output; returns both.
    pub(crate) fn state(&mut self, kind: StateKind, layer: usize) -> (Val, Val) {
        use crate::onnx::builder::Dim;
        let shape = shapes::state_shape(self.config, self.options.max_chunk, kind);
        let mut dims = vec![Dim::Named("rows")];
        dims.extend(shape.into_iter().map(Dim::Of));
        let name = format!("{}.{layer}", kind.word());
        let input = self.g.input(&name, DataType::Float, &dims);
        let output = self.g.output(&format!("{name}.out"), DataType::Float, &dims);
        (input, output)
    }
}
