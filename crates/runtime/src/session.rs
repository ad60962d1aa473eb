//! Sessions of ONNX Runtime over a graph: as it is, or given to our operators.

use std::path::Path;
use std::time::Duration;

use ort::ep::{CUDA, ExecutionProvider as _};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use recurve_kernels::{Kernels, Pool};

use crate::library::Library;
use crate::lower::{leaves_products, lower};
use crate::model::{KernelChoice, Options};
use crate::operator::{self, Shared};

/// How long a thread of ours looks for work before it sleeps: longer than anything between two products takes.
const SPIN: Duration = Duration::from_micros(50);

/// The same where spinning is asked for: from one step to the next.
const LONG_SPIN: Duration = Duration::from_millis(20);

/// Whether ONNX Runtime's library was built for NVIDIA GPUs.
pub(crate) fn has_cuda() -> bool {
    CUDA::is_available().unwrap_or(false)
}

/// A session over the graph in a file, and whose kernels compute it: ONNX Runtime's where no node is ours. Its weights are
/// mapped from the files beside it.
pub(crate) fn from_file(library: &Library, graph: &Path, options: &Options) -> Result<(Session, KernelChoice), String> {
    let lowered = match options.kernels {
        KernelChoice::OnnxRuntime | KernelChoice::Cuda => None,
        KernelChoice::Recurve => lower(&std::fs::read(graph).map_err(|error| error.to_string())?, operator::LOWERED)?,
    };
    let Some(lowered) = lowered else {
        let session = theirs(library, options)?.commit_from_file(graph);
        // A graph without products of ours is theirs, whoever was wanted.
        let kernels =
            if options.kernels == KernelChoice::Cuda { KernelChoice::Cuda } else { KernelChoice::OnnxRuntime };
        return Ok((session.map_err(|error| error.to_string())?, kernels));
    };
    let folder = graph.parent().and_then(Path::to_str).ok_or("the path is not UTF-8")?;
    let session = with_ours(library, options, &lowered)?
        .with_config_entry("session.model_external_initializers_file_folder_path", folder)
        .map_err(|error| error.to_string())?
        .commit_from_memory(&lowered);
    Ok((session.map_err(|error| error.to_string())?, KernelChoice::Recurve))
}

/// A session over a graph in memory that has its weights in it.
pub(crate) fn from_memory(library: &Library, graph: &[u8], options: &Options) -> Result<Session, String> {
    let session = match options.kernels {
        KernelChoice::OnnxRuntime | KernelChoice::Cuda => theirs(library, options)?.commit_from_memory(graph),
        KernelChoice::Recurve => {
            let lowered = lower(graph, operator::LOWERED)?.ok_or("no node of it is ours")?;
            with_ours(library, options, &lowered)?.commit_from_memory(&lowered)
        }
    };
    session.map_err(|error| error.to_string())
}

/// Threads in effect: those that are configured, or for 0 one for each processor that this process may use. Its affinity and the
/// quota of its control groups count.
#[must_use]
pub fn threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// For ONNX Runtime's own kernels.
fn theirs(library: &Library, options: &Options) -> Result<SessionBuilder, String> {
    let builder = plain(library, threads(options.threads), options.spinning)?;
    if options.kernels != KernelChoice::Cuda {
        return Ok(builder);
    }
    // Without this, it would compute on the CPU and say so in its log only.
    let cuda = CUDA::default().build().error_on_failure();
    builder.with_execution_providers([cuda]).map_err(|error| format!("its CUDA provider does not start: {error}"))
}

/// A builder's error carries the builder: only its words are kept.
fn plain(library: &Library, threads: usize, spinning: bool) -> Result<SessionBuilder, String> {
    Session::builder(&library.environment)
        .map_err(|error| error.to_string())?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|error| error.to_string())?
        .with_intra_threads(threads)
        .map_err(|error| error.to_string())?
        .with_inter_threads(1)
        .map_err(|error| error.to_string())?
        .with_intra_op_spinning(spinning)
        .map_err(|error| error.to_string())?
        .with_inter_op_spinning(spinning)
        .map_err(|error| error.to_string())
}

fn with_ours(library: &Library, options: &Options, lowered: &[u8]) -> Result<SessionBuilder, String> {
    let threads = threads(options.threads);
    let spin = if options.spinning { LONG_SPIN } else { SPIN };
    let pool = Pool::new(threads, spin).map_err(|error| error.to_string())?;
    let shared = Shared::new(Kernels::best(), pool);
    let operators = operator::domain(&shared).map_err(|error| error.to_string())?;
    // Beside our own threads, only products are worth others: those in f32, or of a form that we do not know.
    let theirs = if leaves_products(lowered) { threads } else { 1 };
    plain(library, theirs, options.spinning)?.with_operators(operators).map_err(|error| error.to_string())
}
