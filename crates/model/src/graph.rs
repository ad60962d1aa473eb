//! The whole network as an ONNX graph, and the shards that hold its weights.

use prost::Message;
use recurve_onnx::{DataType, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};

use crate::block::{
    Emit, attention::attention, embed::embed, head::head, mlp::mlp, norm::rms, position::position, recurrent::recurrent,
};
use crate::builder::{Builder, Dim, MICROSOFT, ONNX, RECURVE};
use crate::config::{BlockType, ModelConfig};
use crate::quantize::WeightFormat;
use crate::shapes::{self, StateSpec, layer_tensor};
use crate::shard::{Initializer, Shard, Shards};

/// The version of ONNX's operators that graphs use; ONNX Runtime knows it from 1.25 on.
const OPSET: i64 = 24;
/// The version of the ONNX file format that goes with it.
const IR_VERSION: i64 = 11;

/// How a model is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Format of the matrices.
    pub weights: WeightFormat,
    /// Largest number of values that share a scale: 32, 64 or 128.
    pub block_size: usize,
    /// Most tokens that one run of the graph takes; fixes the size of the attention rings.
    pub max_chunk: usize,
}

impl ExportOptions {
    /// Slots of an attention ring: a whole chunk is written before its first token looks back.
    pub(crate) fn ring(&self, config: &ModelConfig) -> usize {
        config.window + self.max_chunk
    }
}

/// A graph whose weights are not written yet.
#[derive(Debug)]
pub struct GraphPlan {
    graph: GraphProto,
    functions: Vec<FunctionProto>,
    initializers: Vec<Initializer>,
    shards: Vec<Shard>,
    states: Vec<StateSpec>,
    max_chunk: usize,
}

impl GraphPlan {
    /// Lays out the graph and its shards. Inputs: `input_ids` i64 `[rows, tokens]`, `start` i64 `[rows]` (tokens that each
    /// row has consumed), `num_logits` i64 `[1]` (trailing positions that need logits), and every carried tensor; outputs:
    /// `logits` f32 `[rows, num_logits, vocab]` and every carried tensor again as `<name>.out`.
    pub fn new(config: &ModelConfig, options: &ExportOptions) -> Self {
        let mut e = Emit { config, options, g: Builder::default(), shards: Shards::default(), functions: Vec::new() };
        let ids = e.g.input("input_ids", DataType::Int64, &[Dim::Named("rows"), Dim::Named("tokens")]);
        let start = e.g.input("start", DataType::Int64, &[Dim::Named("rows")]);
        let num_logits = e.g.input("num_logits", DataType::Int64, &[Dim::Of(1)]);
        let dims = [Dim::Named("rows"), Dim::Named("logits"), Dim::Of(config.vocab_size)];
        let logits = e.g.output("logits", DataType::Float, &dims);

        e.g.enter("position");
        let position = position(&mut e, &ids, &start);
        e.g.enter("embed");
        e.shards.begin("embed".to_owned());
        let (mut x, table) = embed(&mut e, &ids);
        for (layer, block) in config.blocks.iter().enumerate() {
            e.shards.begin(format!("layer-{layer:02}"));
            e.g.enter(format!(
                "layers.{layer}.{}",
                match block {
                    BlockType::Recurrent => "recurrent",
                    BlockType::Attention => "attention",
                }
            ));
            let h = rms(&mut e, &x, &layer_tensor(layer, "temporal_pre_norm.weight"));
            let mixed = match block {
                BlockType::Recurrent => recurrent(&mut e, layer, &h, &position),
                BlockType::Attention => attention(&mut e, layer, &h, &position),
            };
            x = e.g.op("Add", &[&x, &mixed], vec![]);
            e.g.enter(format!("layers.{layer}.mlp"));
            let h = rms(&mut e, &x, &layer_tensor(layer, "channel_pre_norm.weight"));
            let wide = mlp(&mut e, layer, &h);
            x = e.g.op("Add", &[&x, &wide], vec![]);
        }
        e.g.enter("head");
        e.shards.begin("final".to_owned());
        head(&mut e, &x, &table, &position, &num_logits, logits);

        let (shards, initializers) = e.shards.finish();
        Self {
            graph: e.g.finish("recurrent_gemma", Vec::new()),
            functions: e.functions,
            initializers,
            shards,
            states: shapes::states(config, options.max_chunk),
            max_chunk: options.max_chunk,
        }
    }

    /// The weight files, in layer order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Every carried tensor, in the order of the graph's inputs.
    pub fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// The graph as ONNX. `files` has the name of each shard's file, beside which the graph will lie.
    ///
    /// # Panics
    /// If there are fewer names than shards.
    pub fn graph(&self, files: &[String]) -> Vec<u8> {
        assert_eq!(files.len(), self.shards.len(), "one file name for each shard");
        let mut graph = self.graph.clone();
        graph.initializer.extend(self.initializers.iter().map(|tensor| tensor.proto(files)));
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let mut functions = self.functions.clone();
        for function in &mut functions {
            function.opset_import = vec![opset(ONNX, OPSET), opset(MICROSOFT, 1)];
        }
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![opset(ONNX, OPSET), opset(MICROSOFT, 1), opset(RECURVE, 1)],
            producer_name: "recurve".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            metadata_props: vec![StringStringEntryProto {
                key: "recurve.max_chunk".to_owned(),
                value: self.max_chunk.to_string(),
            }],
            functions,
        };
        model.encode_to_vec()
    }
}
