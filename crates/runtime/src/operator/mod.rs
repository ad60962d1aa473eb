//! Our own operators in ONNX Runtime: what lies between its nodes and `recurve-kernels`.
//!
//! Each operator's meaning is written in the graph as a function of standard operators; these compute the same, faster.

mod attention;
mod elementwise;
mod product;
mod recurrent;
mod tensors;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    /// The workshop. What a panic left behind in it is memory for intermediate results, written anew each time.
    fn enter(&self) -> MutexGuard<'_, Workshop> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what ONNX Runtime calls. A panic becomes an error, with its words: it must not cross into ONNX Runtime, where it
/// would end the process.
fn guarded<T>(operator: &str, work: impl FnOnce() -> ort::Result<T>) -> ort::Result<T> {
    caught(operator, work).unwrap_or_else(|words| Err(ort::Error::new(words)))
}

fn caught<T>(operator: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let words = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        format!("{operator} panicked: {}", words.unwrap_or("without words"))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_has_its_words_and_the_operator() {
        let index = std::hint::black_box(7);
        let indexed = caught("SoftCap", || [1, 2][index]).unwrap_err();
        assert!(indexed.starts_with("SoftCap panicked: index out of bounds"), "{indexed}");
        assert_eq!(caught::<()>("SoftCap", || panic!("plain")), Err("SoftCap panicked: plain".to_owned()));
        assert_eq!(caught("SoftCap", || 3), Ok(3));
    }
}
