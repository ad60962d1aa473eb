//! Through the real runtime, an exported bundle gives its own golden logits.

use std::path::Path;

use recurve_bundle::{Bundle, StateKind, Tolerance};
use recurve_runtime::{Batch, Model, ModelLayout, Options, StateLayout};
use recurve_tests::{graph, world};

fn load(bundle: &Bundle) -> Model {
    let info = bundle.info();
    let states = info.states.iter().map(|state| StateLayout {
        name: state.name.clone(),
        shape: state.shape.iter().map(|&dim| dim as usize).collect(),
        ring: matches!(state.kind, StateKind::K | StateKind::V),
    });
    let layout =
        ModelLayout { vocab: info.vocab_size as usize, max_chunk: info.max_chunk as usize, states: states.collect() };
    let options = Options {
        threads: 1,
        spinning: false,
        rows: 1,
        kernels: recurve_runtime::KernelChoice::Recurve,
        step_limit: None,
    };
    Model::load(graph::library(), &bundle.graph_path(), layout, &options).unwrap()
}

fn check(path: &Path) {
    let bundle = Bundle::open(path).unwrap();
    bundle.verify(&mut |_| {}).unwrap();
    let golden = bundle.golden().unwrap();
    let mut model = load(&bundle);
    let mut logits = Vec::new();
    for (start, &token) in (0..).zip(&golden.tokens) {
        let batch = Batch { first: 0, starts: &[start], ids: &[token], logits: 1, tag: None };
        logits.extend_from_slice(model.step(batch).unwrap().logits);
    }
    let last = &logits[logits.len() - golden.logits.len()..];
    let differences = || last.iter().zip(&golden.logits).map(|(a, b)| f64::from(a - b));
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let (found, allowed) = match golden.tolerance {
        Tolerance::MaxAbs => (differences().map(f64::abs).fold(0.0, f64::max), 1e-4),
        Tolerance::RelativeRms => {
            let scale = squares(&mut golden.logits.iter().map(|&logit| f64::from(logit)));
            // Activations are rounded to 8 bits in every product, and the error grows with the layers.
            ((squares(&mut differences()) / scale).sqrt(), 0.05)
        }
    };
    println!("{}, {}: {found:.1e}", bundle.name(), bundle.info().weights);
    assert!(found <= allowed, "{}: {found:e}", bundle.name());
}

#[test]
fn of_f32() {
    check(&world::tiny("f32"));
    check(&world::reference("rra-mqa"));
}

#[test]
fn of_int8() {
    check(&world::tiny("int8"));
    check(&world::demo());
}

#[test]
fn of_int4() {
    check(&world::tiny("int4"));
    check(&world::slow());
}
