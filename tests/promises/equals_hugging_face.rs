//! The exported graph gives the logits of Hugging Face's own implementation.

use recurve_model::WeightFormat;
use recurve_runtime::{Batch, KernelChoice};
use recurve_tests::reference::Reference;
use recurve_tests::{graph, reference};

/// Whose kernels compute: the graph has one meaning.
const BOTH: [KernelChoice; 2] = [KernelChoice::Recurve, KernelChoice::OnnxRuntime];
/// Every checkpoint with both.
fn cases() -> impl Iterator<Item = (Reference, KernelChoice)> {
    BOTH.into_iter().flat_map(|kernels| reference::all().into_iter().map(move |case| (case, kernels)))
}

/// Largest difference of a logit in fp32.
const TOLERANCE: f32 = 1e-4;

#[test]
fn token_by_token_and_in_chunks_of_every_size() {
    for (case, kernels) in cases() {
        let max_chunk = case.config.window + 5;
        let mut graph = graph::export(&case.config, &case.weights, WeightFormat::F32, 32, max_chunk, 1, kernels);
        let mut worst = 0.0f32;
        for chunk in 1..=max_chunk {
            graph.model.reset(0);
            let logits = graph.read(0, 0, &case.tokens, chunk);
            let difference = reference::worst(&logits, &case.logits);
            assert!(difference <= TOLERANCE, "{} in chunks of {chunk}: {difference:e}", case.name());
            worst = worst.max(difference);
        }
        println!("{}: {worst:e} over chunks of 1 to {max_chunk}", case.name());
    }
}

#[test]
fn a_batch_of_rows_at_different_positions() {
    for (case, kernels) in cases() {
        let vocab = case.config.vocab_size;
        // The first row begins, the others are inside and beyond the first window.
        let begun = [0, 3, case.config.window + 1, 3 * case.config.window];
        let mut graph = graph::export(&case.config, &case.weights, WeightFormat::F32, 32, 8, begun.len(), kernels);
        for (row, &begun) in begun.iter().enumerate() {
            graph.read(row, 0, &case.tokens[..begun], 8);
        }
        for i in 0..case.tokens.len() - 3 * case.config.window {
            let starts = begun.map(|begun| (begun + i) as u64);
            let ids = begun.map(|begun| case.tokens[begun + i]);
            let step = graph.model.step(Batch { first: 0, starts: &starts, ids: &ids, logits: 1, tag: None }).unwrap();
            for (row, logits) in step.logits.chunks_exact(vocab).enumerate() {
                let expected = &case.logits[(begun[row] + i) * vocab..][..vocab];
                let difference = reference::worst(logits, expected);
                assert!(difference <= TOLERANCE, "{} row {row} at {}: {difference:e}", case.name(), starts[row]);
            }
        }
    }
}

#[test]
fn greedy_continuations_are_identical() {
    for (case, kernels) in cases() {
        let mut graph = graph::export(&case.config, &case.weights, WeightFormat::F32, 32, 16, 1, kernels);
        let mut logits = graph.read(0, 0, &case.prompt, 16);
        let mut made = Vec::new();
        while made.len() < case.continuation.len() {
            let last = &logits[logits.len() - case.config.vocab_size..];
            let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u32;
            logits = graph.read(0, case.prompt.len() + made.len(), &[best], 1);
            made.push(best);
        }
        assert_eq!(made, case.continuation, "{}", case.name());
    }
}

#[test]
fn the_demo_model_in_a_conversation() {
    let demo = reference::demo();
    let vocab = demo.config.vocab_size;
    for kernels in BOTH {
        let mut graph = graph::export(&demo.config, &demo.weights, WeightFormat::F32, 64, 64, 1, kernels);
        let logits = graph.read(0, 0, &demo.tokens, 64);
        for (expected, &at) in demo.logits.chunks_exact(vocab).zip(&demo.kept) {
            let difference = reference::worst(&logits[at as usize * vocab..][..vocab], expected);
            assert!(difference <= TOLERANCE, "after token {at}: {difference:e}");
        }
    }
}
