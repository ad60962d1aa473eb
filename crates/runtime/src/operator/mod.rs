//! Our own operators in ONNX Runtime: what lies between its nodes and `recurve-kernels`.
//!
//! Each operator's meaning is written in the graph as a function of standard operators; these compute the same, faster.

mod attention;
mod elementwise;
mod product;
mod recurrent;
mod tensors;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use ort::operator::OperatorDomain;
use recurve_kernels::{AttentionScratch, Kernels, Pool, Scratch};

use crate::lower::Lowered;

/// The domain of our operators in a lowered graph.
pub(crate) const DOMAIN: &str = "recurve";

/// The operators that graphs define as functions.
pub(crate) const LOWERED: &[Lowered] = &[
    Lowered { name: "RecurrentMix", inputs: &recurrent::INPUTS, more: Some("tap_") },
    Lowered { name: "LocalAttention", inputs: &attention::INPUTS, more: None },
    Lowered { name: "GatedGelu", inputs: &["branches"], more: None },
    Lowered { name: "SoftCap", inputs: &["x"], more: None },
];

/// What all operators of a session share. A session runs one node at a time.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) kernels: Kernels,
    pub(crate) pool: Pool,
    pub(crate) scratch: Scratch,
    pub(crate) attention: AttentionScratch,
}

/// The workshop, as operators hold it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Workshop>>);

impl Shared {
    pub(crate) fn new(kernels: Kernels, pool: Pool) -> Self {
        Self(Arc::new(Mutex::new(Workshop {
            kernels,
            pool,
            scratch: Scratch::default(),
            attention: AttentionScratch::default(),
        })))
    }

    /// Runs a kernel's work. A panic becomes an error: it must not cross into ONNX Runtime.
    fn work<T>(&self, work: impl FnOnce(&mut Workshop) -> ort::Result<T>) -> ort::Result<T> {
        // What a panic left behind is memory for intermediate results, written anew each time.
        let mut workshop = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::panic::catch_unwind(AssertUnwindSafe(|| work(&mut workshop)))
            .unwrap_or_else(|_| Err(ort::Error::new("a kernel panicked")))
    }
}

/// All our operators.
pub(crate) fn domain(shared: &Shared) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?
        .add(product::Product(shared.clone()))?
        .add(recurrent::RecurrentMix(shared.clone()))?
        .add(attention::LocalAttention(shared.clone()))?
        .add(elementwise::GatedGelu(shared.clone()))?
        .add(elementwise::SoftCap(shared.clone()))
}
