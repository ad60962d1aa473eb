//! Whose kernels are faster on this machine: both compute in turn for a moment.
//!
//! A small graph is tried whole. A large one cannot be, since loading it with ONNX Runtime's kernels takes seconds and a
//! second copy of its weights: one product of its own shape stands for it, which is what most of its time goes to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ort::session::Session;
use ort::value::Tensor;
use prost::Message as _;
use recurve_onnx::{
    AttributeProto, DataType, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

use crate::library::Library;
use crate::lower::{MICROSOFT, PRODUCT, attribute, is_ours};
use crate::model::{KernelChoice, Model, ModelLayout, Options};
use crate::rows::Batch;
use crate::session;

/// Most bytes of weights with which a graph is tried whole.
const SMALL: u64 = 32 << 20;
/// Most bytes of weights that a product is tried with: more than the caches of the boards that this is for, few enough to be
/// repacked in a moment.
const WEIGHTS: usize = 4 << 20;
/// How long the two are compared.
const TIME: Duration = Duration::from_millis(30);
/// The least number of turns that each has, and the most.
const TURNS: [usize; 2] = [3, 100];
/// Times that it is computed in a turn. The first one is not counted: in a generation the next one follows at once, and no
/// thread has to be woken.
const AT_ONCE: usize = 6;
/// Ours are taken as long as the others are not faster than this: they need no second copy of the weights, start at once
/// and keep a request's bits.
const TIE: f64 = 1.05;
/// Root mean square of the difference between the two results, relative to them: both round activations to 8 bits.
const TOLERANCE: f64 = 2e-2;

/// The two kinds, compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// What was computed.
    pub tried: Tried,
    /// Median time with our kernels.
    pub recurve: Duration,
    /// Median time with ONNX Runtime's.
    pub onnxruntime: Duration,
    /// What the trial itself took.
    pub took: Duration,
}

/// What stands for a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// The graph itself: a step of one row.
    Graph,
    /// A product that is like most of its own.
    Product(TriedProduct),
}

/// A product with one row of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TriedProduct {
    /// Rows of the weights: at most those of the graph's.
    pub rows: usize,
    /// Columns of the weights.
    pub columns: usize,
    /// Bits of a weight.
    pub bits: usize,
    /// Columns that share a scale.
    pub block: usize,
}

/// Why there is nothing to compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// Ours cannot be used.
    #[error("ours cannot compute {tried}: {reason}")]
    Ours {
        /// What was tried.
        tried: Tried,
        /// Why.
        reason: String,
    },
    /// ONNX Runtime's cannot be used.
    #[error("ONNX Runtime's cannot compute {tried}: {reason}")]
    OnnxRuntimes {
        /// What was tried.
        tried: Tried,
        /// Why.
        reason: String,
    },
    /// The graph cannot be read.
    #[error("{}: the graph cannot be read: {reason}", path.display())]
    Graph {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Graph => f.write_str("a step of the graph"),
            Self::Product(TriedProduct { rows, columns, bits, block }) => {
                write!(f, "a product of {rows} x {columns} int{bits} block {block}")
            }
        }
    }
}

impl TrialError {
    /// The kernels that are left: ONNX Runtime's, unless it is they that fail.
    pub fn leaves(&self) -> KernelChoice {
        match self {
            Self::OnnxRuntimes { .. } => KernelChoice::Recurve,
            Self::Ours { .. } | Self::Graph { .. } => KernelChoice::OnnxRuntime,
        }
    }
}

impl Trial {
    /// Computes what stands for the graph with both kinds in turn. `weights`: bytes of the graph's weights; the rows of
    /// `options` and their kernels are of no matter. None for a large graph without products of quantized weights: nothing
    /// speaks against ours then.
    ///
    /// # Errors
    /// One of the two cannot compute it, or they do not agree on a product, which is put down to ours.
    pub fn of(
        library: &Library,
        graph: &Path,
        layout: &ModelLayout,
        weights: u64,
        options: &Options,
    ) -> Result<Option<Self>, TrialError> {
        let begun = Instant::now();
        let (tried, [recurve, onnxruntime]) = if weights <= SMALL {
            let open = |kernels| {
                let options = Options { rows: 1, kernels, ..*options };
                let model = Model::load(library, graph, layout.clone(), &options).map_err(|error| error.to_string())?;
                Ok(Stepped { model, position: 0 })
            };
            let mut own = open(KernelChoice::Recurve).map_err(Tried::Graph.ours())?;
            let mut other = open(KernelChoice::OnnxRuntime).map_err(Tried::Graph.onnx_runtimes())?;
            (Tried::Graph, in_turn(Tried::Graph, &mut own, &mut other)?)
        } else {
            let unreadable = |reason| TrialError::Graph { path: graph.to_owned(), reason };
            let bytes = std::fs::read(graph).map_err(|error| unreadable(error.to_string()))?;
            let model = ModelProto::decode(bytes.as_slice()).map_err(|error| unreadable(error.to_string()))?;
            let Some(product) = TriedProduct::main_of(&model) else { return Ok(None) };
            (Tried::Product(product), product.compare(library, options)?)
        };
        Ok(Some(Self { tried, recurve, onnxruntime, took: begun.elapsed() }))
    }

    /// Whose kernels are better.
    pub fn choice(&self) -> KernelChoice {
        match self.recurve.as_secs_f64() <= self.onnxruntime.as_secs_f64() * TIE {
            true => KernelChoice::Recurve,
            false => KernelChoice::OnnxRuntime,
        }
    }
}

impl Tried {
    fn ours(self) -> impl Fn(String) -> TrialError {
        move |reason| TrialError::Ours { tried: self, reason }
    }

    fn onnx_runtimes(self) -> impl Fn(String) -> TrialError {
        move |reason| TrialError::OnnxRuntimes { tried: self, reason }
    }
}

impl TriedProduct {
    /// Median times of ours and of ONNX Runtime's, which give the same.
    fn compare(self, library: &Library, options: &Options) -> Result<[Duration; 2], TrialError> {
        let tried = Tried::Product(self);
        let graph = self.graph();
        let open = |kernels| Multiplied::open(library, &graph, self.columns, &Options { kernels, ..*options });
        let mut own = open(KernelChoice::Recurve).map_err(tried.ours())?;
        let mut other = open(KernelChoice::OnnxRuntime).map_err(tried.onnx_runtimes())?;
        let times = in_turn(tried, &mut own, &mut other)?;
        let apart = difference(&own.y, &other.y);
        if apart.is_nan() || apart > TOLERANCE {
            let reason =
                format!("it is {apart:.1e} away from ONNX Runtime's, and {TOLERANCE:.0e} is what rounding does");
            return Err(tried.ours()(reason));
        }
        Ok(times)
    }

    /// The kind of product that most weights belong to, with as many rows as are tried.
    fn main_of(model: &ModelProto) -> Option<Self> {
        let mut kinds: Vec<Self> = Vec::new();
        for node in model.graph.iter().flat_map(|graph| &graph.node).filter(|node| is_ours(node)) {
            let Some(product) = Self::of(node) else { continue };
            match kinds.iter_mut().find(|kind| Self { rows: product.rows, ..**kind } == product) {
                Some(kind) => kind.rows = kind.rows.saturating_add(product.rows),
                None => kinds.push(product),
            }
        }
        let main = kinds.into_iter().max_by_key(Self::bytes)?;
        let most = WEIGHTS / Self { rows: 1, ..main }.bytes().max(1);
        Some(Self { rows: main.rows.min(most), ..main })
    }

    /// A node's product; none where a single row is more than is tried.
    fn of(node: &NodeProto) -> Option<Self> {
        let size = |name: &str| attribute(node, name).and_then(|value| usize::try_from(value).ok());
        let product = Self { rows: size("N")?, columns: size("K")?, bits: size("bits")?, block: size("block_size")? };
        (Self { rows: 1, ..product }.bytes() <= WEIGHTS).then_some(product)
    }

    fn bytes(&self) -> usize {
        self.rows.saturating_mul(self.columns).saturating_mul(self.bits) / 8
    }

    /// A graph of this product alone, its weights in it: `y [1, rows] = x [1, columns] Wᵀ`.
    fn graph(&self) -> Vec<u8> {
        let blocks = self.columns / self.block;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut words = Vec::with_capacity(self.bytes());
        while words.len() < self.bytes() {
            // xorshift (Marsaglia, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            words.extend_from_slice(&random.to_le_bytes());
        }
        words.truncate(self.bytes());
        let scales = (0..self.rows * blocks).flat_map(|i| (0.01 + (i % 7) as f32 * 0.001).to_le_bytes()).collect();
        let tensor = |name: &str, dims: &[usize], kind: DataType, data: Vec<u8>| TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: kind as i32,
            name: name.to_owned(),
            raw_data: Some(data),
            ..TensorProto::default()
        };
        let int = |name: &str, value: usize| AttributeProto {
            name: name.to_owned(),
            i: Some(value as i64),
            r#type: recurve_onnx::attribute_type::INT,
            ..AttributeProto::default()
        };
        let node = NodeProto {
            input: ["x", "values", "scales"].map(str::to_owned).to_vec(),
            output: vec!["y".to_owned()],
            op_type: PRODUCT.to_owned(),
            domain: MICROSOFT.to_owned(),
            attribute: vec![
                int("K", self.columns),
                int("N", self.rows),
                int("bits", self.bits),
                int("block_size", self.block),
                int("accuracy_level", 4),
            ],
            ..NodeProto::default()
        };
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let graph = GraphProto {
            node: vec![node],
            name: "trial".to_owned(),
            initializer: vec![
                tensor("values", &[self.rows, blocks, self.block * self.bits / 8], DataType::Uint8, words),
                tensor("scales", &[self.rows, blocks], DataType::Float, scales),
            ],
            input: vec![row("x", self.columns)],
            output: vec![row("y", self.rows)],
        };
        let opset_import = vec![opset("", 21), opset(MICROSOFT, 1)];
        ModelProto { ir_version: 10, opset_import, graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }
}

/// An f32 tensor `[1, width]`.
fn row(name: &str, width: usize) -> ValueInfoProto {
    let dim = |value: usize| DimensionProto { value: Some(Dimension::Value(value as i64)) };
    let shape = Some(TensorShapeProto { dim: vec![dim(1), dim(width)] });
    let tensor_type = Some(TensorTypeProto { elem_type: DataType::Float as i32, shape });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

/// Something that can be computed again and again.
trait Run {
    fn run(&mut self) -> Result<(), String>;

    /// Computes it some times, and adds the times of those that count.
    fn turn(&mut self, times: &mut Vec<Duration>) -> Result<(), String> {
        self.run()?;
        for _ in 1..AT_ONCE {
            let begun = Instant::now();
            self.run()?;
            times.push(begun.elapsed());
        }
        Ok(())
    }
}

/// Median times of ours and of ONNX Runtime's.
fn in_turn(tried: Tried, own: &mut dyn Run, other: &mut dyn Run) -> Result<[Duration; 2], TrialError> {
    let (mut times, begun) = ([Vec::new(), Vec::new()], Instant::now());
    for turn in 0..TURNS[1] {
        if turn >= TURNS[0] && begun.elapsed() >= TIME {
            break;
        }
        own.turn(&mut times[0]).map_err(tried.ours())?;
        other.turn(&mut times[1]).map_err(tried.onnx_runtimes())?;
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    }))
}

/// A product's session.
struct Multiplied {
    session: Session,
    x: Tensor<f32>,
    y: Vec<f32>,
}

impl Multiplied {
    fn open(library: &Library, graph: &[u8], columns: usize, options: &Options) -> Result<Self, String> {
        let session = session::from_memory(library, graph, options)?;
        let x: Vec<f32> = (0..columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let x = Tensor::from_array(([1, columns], x)).map_err(|error| error.to_string())?;
        Ok(Self { session, x, y: Vec::new() })
    }
}

impl Run for Multiplied {
    fn run(&mut self) -> Result<(), String> {
        let outputs = self.session.run(ort::inputs![&self.x]).map_err(|error| error.to_string())?;
        let (_, y) = outputs[0].try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
        self.y.clear();
        self.y.extend_from_slice(y);
        Ok(())
    }
}

/// A whole model, and how far its row has come.
struct Stepped {
    model: Model,
    position: u64,
}

impl Run for Stepped {
    fn run(&mut self) -> Result<(), String> {
        // Token 0 is in every vocabulary.
        let batch = Batch { first: 0, starts: &[self.position], ids: &[0], logits: 1, tag: None };
        self.model.step(batch).map_err(|error| error.to_string())?;
        self.position += 1;
        Ok(())
    }
}

/// Root mean square of the difference, relative to that of what is expected.
fn difference(result: &[f32], expected: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let apart: f64 = result.iter().zip(expected).map(|(result, expected)| square(result - expected)).sum();
    (apart / expected.iter().map(|&expected| square(expected)).sum::<f64>()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::lower;
    use crate::operator;

    fn node(rows: usize, columns: usize, bits: usize) -> NodeProto {
        let graph = TriedProduct { rows, columns, bits, block: 32 }.graph();
        ModelProto::decode(graph.as_slice()).unwrap().graph.unwrap().node.remove(0)
    }

    fn model(nodes: Vec<NodeProto>) -> ModelProto {
        ModelProto { graph: Some(GraphProto { node: nodes, ..GraphProto::default() }), ..ModelProto::default() }
    }

    #[test]
    fn the_kind_with_most_weights_is_tried() {
        let many = (0..5).map(|_| node(300, 256, 4));
        let nodes = many.chain([node(1_000, 64, 4), node(500, 128, 8)]).collect();
        let product = TriedProduct::main_of(&model(nodes)).unwrap();
        assert_eq!(product, TriedProduct { rows: 1_500, columns: 256, bits: 4, block: 32 });
        assert_eq!(TriedProduct::main_of(&model(Vec::new())), None);
        let theirs = NodeProto { input: ["x", "v", "s", "zero_points"].map(str::to_owned).to_vec(), ..node(9, 64, 4) };
        assert_eq!(TriedProduct::main_of(&model(vec![theirs])), None, "a product that is not ours");
        let huge = |rows: i64, columns: i64| {
            let mut node = node(9, 64, 4);
            for attribute in &mut node.attribute {
                attribute.i = match attribute.name.as_str() {
                    "N" => Some(rows),
                    "K" => Some(columns),
                    _ => attribute.i,
                };
            }
            node
        };
        assert_eq!(TriedProduct::main_of(&model(vec![huge(1, 1 << 60), huge(-5, 64)])), None);
        let product = TriedProduct::main_of(&model(vec![huge(1 << 62, 64), huge(1 << 62, 64)])).unwrap();
        assert!(product.bytes() <= WEIGHTS, "{product:?}");
    }

    #[test]
    fn large_products_are_tried_in_part() {
        let product = TriedProduct::main_of(&model(vec![node(7_000, 2_560, 8)])).unwrap();
        assert_eq!((product.rows, product.columns), (WEIGHTS / 2_560, 2_560));
    }

    #[test]
    fn ours_win_ties() {
        let time = Duration::from_micros;
        let trial = |recurve, onnxruntime| Trial {
            tried: Tried::Graph,
            recurve: time(recurve),
            onnxruntime: time(onnxruntime),
            took: Duration::ZERO,
        };
        assert_eq!(trial(90, 100).choice(), KernelChoice::Recurve);
        assert_eq!(trial(105, 100).choice(), KernelChoice::Recurve);
        assert_eq!(trial(106, 100).choice(), KernelChoice::OnnxRuntime);
    }

    #[test]
    fn what_is_tried_is_given_to_our_operator() {
        let graph = TriedProduct { rows: 40, columns: 64, bits: 4, block: 32 }.graph();
        let lowered = ModelProto::decode(lower(&graph, operator::LOWERED).unwrap().unwrap().as_slice()).unwrap();
        assert_eq!(lowered.graph.unwrap().node[0].domain, operator::DOMAIN);
    }

    #[test]
    fn results_that_differ_are_told_apart() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!(difference(&[1.1, 2.0], &[1.0, 2.0]) > TOLERANCE);
        assert!(difference(&[f32::NAN, 2.0], &[1.0, 2.0]).is_nan());
    }
}
