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

use recurve_onnx::{AttributeProto, DataType, FunctionProto};

use crate::builder::{Builder, Dim, RECURVE, Val};
use crate::config::ModelConfig;
use crate::graph::ExportOptions;
use crate::shapes::{self, StateKind};
use crate::shard::Shards;

/// What every block writes into.
pub(crate) struct Emit<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) options: &'a ExportOptions,
    pub(crate) g: Builder,
    pub(crate) shards: Shards,
    /// Our own operators that the graph uses so far.
    pub(crate) functions: Vec<FunctionProto>,
}

impl Emit<'_> {
    /// Declares a carried tensor of this layer as input and output; returns both.
    pub(crate) fn state(&mut self, kind: StateKind, layer: usize) -> (Val, Val) {
        let shape = shapes::state_shape(self.config, self.options.max_chunk, kind);
        let mut dims = vec![Dim::Named("rows")];
        dims.extend(shape.into_iter().map(Dim::Of));
        let name = format!("{}.{layer}", kind.word());
        let input = self.g.input(&name, DataType::Float, &dims);
        let output = self.g.output(&format!("{name}.out"), DataType::Float, &dims);
        (input, output)
    }

    /// A node of one of our own operators. Its definition, by operators that every ONNX Runtime has, is written beside the
    /// graph once: `body` gets a builder whose inputs and outputs have the names given here. A runtime that knows the
    /// operator takes its own instead.
    pub(crate) fn call(
        &mut self,
        name: &str,
        inputs: &[(&str, &Val)],
        outputs: &[(&str, &Val)],
        attributes: Vec<AttributeProto>,
        body: impl FnOnce(&mut Builder, &ModelConfig, &ExportOptions),
    ) {
        if self.functions.iter().all(|function| function.name != name) {
            let mut builder = Builder::default();
            for (input, _) in inputs {
                builder.input(input, DataType::Float, &[]);
            }
            for (output, _) in outputs {
                builder.output(output, DataType::Float, &[]);
            }
            body(&mut builder, self.config, self.options);
            let attributes = attributes.iter().map(|attribute| attribute.name.clone()).collect();
            self.functions.push(builder.finish_function(RECURVE, name, attributes));
        }
        let inputs: Vec<&Val> = inputs.iter().map(|(_, value)| *value).collect();
        let outputs: Vec<Val> = outputs.iter().map(|(_, value)| (*value).clone()).collect();
        self.g.node(RECURVE, name, &inputs, &outputs, attributes);
    }
}

/// A value of an operator's definition: one of its inputs or outputs.
pub(crate) fn formal(name: &str) -> Val {
    Val(name.to_owned())
}
