//! Graphs in a temporary folder, run through ONNX Runtime without a daemon.

use std::path::Path;
use std::sync::OnceLock;

use recurve_model::{ExportOptions, GraphPlan, ModelConfig, StateKind, WeightFormat, Weights};
use recurve_runtime::{Batch, KernelChoice, Library, LibraryError, Model, ModelLayout, Options, Search, StateLayout};
use tempfile::TempDir;

/// The process's ONNX Runtime: from `ORT_DYLIB_PATH`, or the repository's copy.
pub fn library() -> &'static Library {
    find_library().expect("deploy/fetch-onnxruntime.sh was run")
}

/// As [`library`], for programs that tell their user what is missing.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn find_library() -> Result<&'static Library, &'static LibraryError> {
    static LIBRARY: OnceLock<Result<Library, LibraryError>> = OnceLock::new();
    let load = || {
        let search = Search {
            environment: std::env::var_os("ORT_DYLIB_PATH").map(Into::into),
            executable: std::env::current_exe().ok(),
            ..Search::default()
        };
        Library::load(&search.find()?)
    };
    LIBRARY.get_or_init(load).as_ref()
}

/// A graph that is ready to run, and the folder that it lies in.
pub struct Graph {
    /// The graph, with as many rows as were asked for.
    pub model: Model,
    vocab: usize,
    _dir: TempDir,
}

/// Exports weights and loads the result.
pub fn export(
    config: &ModelConfig,
    weights: &dyn Weights,
    format: WeightFormat,
    block_size: usize,
    max_chunk: usize,
    rows: usize,
    kernels: KernelChoice,
) -> Graph {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = ExportOptions { weights: format, block_size, max_chunk };
    let plan = GraphPlan::new(config, &options);
    let path = write(&plan, weights, dir.path());
    let layout = ModelLayout {
        vocab: config.vocab_size,
        max_chunk,
        states: plan
            .states()
            .iter()
            .map(|state| StateLayout {
                name: state.name.clone(),
                shape: state.shape.clone(),
                ring: matches!(state.kind, StateKind::Keys | StateKind::Values),
            })
            .collect(),
    };
    let options = Options { threads: 2, spinning: false, rows, kernels, step_limit: None };
    let model = Model::load(library(), &path, layout, &options).expect("a graph that loads");
    Graph { model, vocab: config.vocab_size, _dir: dir }
}

fn write(plan: &GraphPlan, weights: &dyn Weights, dir: &Path) -> std::path::PathBuf {
    let mut names = Vec::new();
    for shard in plan.shards() {
        let mut bytes = Vec::new();
        shard.write(weights, None, &mut bytes, &mut |_| {}).expect("a shard");
        assert_eq!(bytes.len() as u64, shard.bytes(), "the size that was announced");
        std::fs::write(dir.join(shard.name()), bytes).expect("a file");
        names.push(shard.name().to_owned());
    }
    let path = dir.join("graph.onnx");
    std::fs::write(&path, plan.graph(&names)).expect("a file");
    path
}

impl Graph {
    /// Reads tokens into a row in chunks of this size and returns the logits after each.
    pub fn read(&mut self, row: usize, start: usize, tokens: &[u32], chunk: usize) -> Vec<f32> {
        let mut all = Vec::new();
        for (i, ids) in tokens.chunks(chunk).enumerate() {
            let starts = [(start + i * chunk) as u64];
            let batch = Batch { first: row, starts: &starts, ids, logits: ids.len(), tag: None };
            let step = self.model.step(batch).expect("a step");
            all.extend_from_slice(step.logits);
        }
        assert_eq!(all.len(), tokens.len() * self.vocab);
        all
    }
}
