//! A graph, loaded and checked against what its bundle says of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ort::session::Session;
use recurve_kernels::Kernels;

use crate::library::Library;
use crate::limit::StepLimit;
use crate::rows::Rows;
use crate::session;
use crate::terminate::Terminator;

/// What a bundle says of its graph.
#[derive(Debug, Clone)]
pub struct ModelLayout {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Most tokens that one run takes for one row.
    pub max_chunk: usize,
    /// Every carried tensor.
    pub states: Vec<StateLayout>,
}

/// One carried tensor, f32.
#[derive(Debug, Clone)]
pub struct StateLayout {
    /// The graph's input; its output is `<name>.out`.
    pub name: String,
    /// Shape of one row.
    pub shape: Vec<usize>,
    /// Whether the graph writes only a few slots of it (a ring), in the same memory; others are written anew each step.
    pub ring: bool,
}

impl StateLayout {
    /// Values of one row.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a row has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a graph is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads of one run; 0: one for each core.
    pub threads: usize,
    /// Whether threads that wait for work keep their core busy: a little faster on an idle machine, much slower beside
    /// other work.
    pub spinning: bool,
    /// Rows of carried state: conversations that are in memory at once.
    pub rows: usize,
    /// Whose kernels compute.
    pub kernels: KernelChoice,
    /// Longest that a step may take; one that takes longer is ended.
    pub step_limit: Option<Duration>,
}

/// Whose kernels compute the products and what lies between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelChoice {
    /// Ours, in a graph that is changed for them when it is loaded.
    Recurve,
    /// ONNX Runtime's, on the graph as it is.
    OnnxRuntime,
    /// ONNX Runtime's on an NVIDIA GPU, where its library has them.
    Cuda,
}

/// Why a graph could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// ONNX Runtime refused it.
    #[error("{}: ONNX Runtime cannot load the graph: {reason}", path.display())]
    Refused {
        /// The graph.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is not enough memory for the carried state.
    #[error("there is no memory for {rows} rows of state, {megabytes} MB each: set engine.slots lower")]
    Memory {
        /// Rows that were asked for.
        rows: usize,
        /// What one takes.
        megabytes: usize,
    },
    /// The graph is not what its bundle says.
    #[error("{}: the graph does not match its bundle: {reason}", path.display())]
    Mismatch {
        /// The graph.
        path: PathBuf,
        /// Where they differ.
        reason: String,
    },
}

/// A loaded graph and the rows of state that it carries. It belongs to one thread at a time.
#[derive(Debug)]
pub struct Model {
    // Dropped in this order: bindings and values, then the session, then (with the last clone) the environment.
    pub(crate) rows: Rows,
    pub(crate) session: Session,
    pub(crate) terminator: Terminator,
    pub(crate) layout: ModelLayout,
    library: Library,
    kernels: &'static str,
    _limit: Option<StepLimit>,
}

impl Model {
    /// Loads a graph; its weights are mapped from the files beside it.
    ///
    /// # Errors
    /// ONNX Runtime refuses the graph or its weights, or inputs and outputs are not those of the layout.
    pub fn load(library: &Library, graph: &Path, layout: ModelLayout, options: &Options) -> Result<Self, LoadError> {
        let refused = |reason: String| LoadError::Refused { path: graph.to_owned(), reason };
        let (session, kernels) = session::from_file(library, graph, options).map_err(refused)?;
        let kernels = match kernels {
            KernelChoice::Recurve => Kernels::best().name(),
            KernelChoice::OnnxRuntime => "onnxruntime",
            KernelChoice::Cuda => "cuda",
        };
        check(&session, &layout).map_err(|reason| LoadError::Mismatch { path: graph.to_owned(), reason })?;
        let terminator = Terminator::new().map_err(|error| refused(error.to_string()))?;
        let rows = Rows::new(&layout, options.rows).ok_or(LoadError::Memory {
            rows: options.rows,
            megabytes: layout.states.iter().map(StateLayout::len).sum::<usize>() * size_of::<f32>() / 1_000_000,
        })?;
        let limit = options.step_limit.map(|limit| StepLimit::start(terminator.clone(), limit));
        let limit = limit.transpose().map_err(|error| refused(format!("the system gives no thread: {error}")))?;
        Ok(Self { rows, session, terminator, layout, library: library.clone(), kernels, _limit: limit })
    }

    /// The library that runs it.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Whose kernels compute: the instruction set of ours, or `onnxruntime`.
    pub fn kernels(&self) -> &'static str {
        self.kernels
    }

    /// What the bundle says of the graph.
    pub fn layout(&self) -> &ModelLayout {
        &self.layout
    }

    /// Ends runs of this model from other threads.
    pub fn terminator(&self) -> Terminator {
        self.terminator.clone()
    }
}

/// Compares every input and output with the layout.
fn check(session: &Session, layout: &ModelLayout) -> Result<(), String> {
    let mut inputs = vec![("input_ids".to_owned(), vec![-1, -1]), ("start".to_owned(), vec![-1])];
    inputs.push(("num_logits".to_owned(), vec![1]));
    let mut outputs = vec![("logits".to_owned(), vec![-1, -1, layout.vocab as i64])];
    for state in &layout.states {
        let shape: Vec<i64> = [-1].into_iter().chain(state.shape.iter().map(|&dim| dim as i64)).collect();
        inputs.push((state.name.clone(), shape.clone()));
        outputs.push((format!("{}.out", state.name), shape));
    }
    for (kind, wanted, found) in [("input", inputs, session.inputs()), ("output", outputs, session.outputs())] {
        if wanted.len() != found.len() {
            return Err(format!("it has {} {kind}s, and {} are described", found.len(), wanted.len()));
        }
        for (name, shape) in wanted {
            let Some(outlet) = found.iter().find(|outlet| outlet.name() == name) else {
                return Err(format!("it has no {kind} `{name}`"));
            };
            let have = outlet.dtype().tensor_shape().map(|shape| shape.to_vec());
            if have.as_deref() != Some(shape.as_slice()) {
                return Err(format!("{kind} `{name}` has shape {have:?}, and {shape:?} is described"));
            }
        }
    }
    Ok(())
}
