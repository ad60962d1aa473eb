//! ONNX Runtime behind a safe face: finding and checking its library, loading a graph, and stepping rows of carried state
//! that lie in our own memory; and the files of weights that it maps, read ahead and locked. The only code of the project
//! that names `ort`.

mod buffer;
mod bus_error;
mod heap;
mod library;
mod limit;
mod lower;
mod model;
mod operator;
mod rows;
mod session;
mod terminate;
mod trial;
mod weights;

/// Exponentials of many logits at once: what draws a token computes with the instructions that the model does.
pub use recurve_kernels::exponentials;

/// The instruction set that our kernels use on this machine, such as `avx512vnni` or `neon-dotprod`.
pub fn instruction_set() -> &'static str {
    recurve_kernels::Kernels::best().name()
}

pub use bus_error::explain_bus_errors;
pub use heap::release_free_memory;
pub use library::{Library, LibraryError, Search};
pub use model::{KernelChoice, LoadError, Model, ModelLayout, Options, StateLayout};
pub use rows::{Batch, Step, StepError};
pub use session::threads;
pub use terminate::Terminator;
pub use trial::{Trial, TrialError, Tried, TriedProduct};
pub use weights::{ReadAhead, Weights, WeightsError};
