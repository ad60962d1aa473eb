//! `engine.kernels`: whose kernels compute, and that the log says so.

use std::fs;
use std::path::{Path, PathBuf};

use recurve_bundle::Bundle;
use recurve_tests::client::{connect, generate, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{binary, clean, run};
use recurve_tests::world::{self, path};
use serde_json::Value;
use tempfile::TempDir;

/// Whether the daemon computes with ONNX Runtime's kernels.
fn onnx_runtimes(daemon: &Daemon) -> bool {
    daemon.wait_for("graph loaded")["kernels"] == "onnxruntime"
}

fn compared(daemon: &Daemon) -> Option<Value> {
    daemon.lines("kernels compared").pop()
}

#[test]
fn what_is_configured_is_taken_untried() {
    for (setting, theirs) in [("recurve", false), ("onnxruntime", true)] {
        let daemon = Setup::new(&world::tiny("int4")).set("engine.kernels", setting).start();
        assert_eq!(onnx_runtimes(&daemon), theirs, "{setting}");
        assert_eq!(compared(&daemon), None, "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faster_ones_are_taken_and_both_figures_are_told() {
    for weights in ["f32", "int8", "int4"] {
        let daemon = Setup::new(&world::tiny(weights)).set("engine.kernels", "auto").start();
        let line = compared(&daemon).unwrap();
        let time = |field: &str| line[field].as_u64().unwrap();
        let (ours, theirs) = (time("recurve_us"), time("onnxruntime_us"));
        assert!(ours > 0 && theirs > 0, "{line}");
        assert_eq!(line["kernels"], if onnx_runtimes(&daemon) { "onnxruntime" } else { "recurve" });
        // Both figures are rounded to microseconds.
        match onnx_runtimes(&daemon) {
            true => assert!(ours + 1 > theirs, "{line}"),
            false => assert!(ours as f64 <= (theirs + 1) as f64 * 1.05, "{line}"),
        }
        let client = connect(&daemon).await;
        assert_eq!(generate(&client, greedy(&[2, 9, 30], 5)).await.unwrap().tokens.len(), 5);
    }
}

/// A copy of a bundle with other bytes in its graph: as many, wherever they stand.
fn altered(bundle: &Path, from: &[u8], to: &[u8]) -> (TempDir, PathBuf) {
    assert_eq!(from.len(), to.len());
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("bundle");
    fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
    for name in ["oci-layout", "index.json"] {
        fs::copy(bundle.join(name), copy.join(name)).unwrap();
    }
    let opened = Bundle::open(bundle).unwrap();
    for blob in fs::read_dir(bundle.join("blobs/sha256")).unwrap() {
        let (source, target) =
            (blob.as_ref().unwrap().path(), copy.join("blobs/sha256").join(blob.unwrap().file_name()));
        if source != opened.graph_path() {
            fs::copy(source, target).unwrap();
            continue;
        }
        let mut graph = fs::read(source).unwrap();
        let places: Vec<_> = (0..graph.len()).filter(|&at| graph[at..].starts_with(from)).collect();
        assert!(!places.is_empty(), "{} in the graph", String::from_utf8_lossy(from));
        for at in places {
            graph[at..at + to.len()].copy_from_slice(to);
        }
        fs::write(target, graph).unwrap();
    }
    (dir, copy)
}

// The definitions in a graph have sizes and numbers in them as constants, so that ONNX Runtime does not notice when those
// that nodes tell our operators are wrong.

/// `SoftCap` without its `cap`: our operator refuses to be made.
const NO_CAP: [&[u8]; 2] = [b"\x0a\x03cap", b"\x0a\x03cup"];

/// `LocalAttention` with one head less: our operator fails at the first step.
const SEVEN_HEADS: [&[u8]; 2] = [b"\x0a\x05heads\x18\x08", b"\x0a\x05heads\x18\x07"];

#[tokio::test(flavor = "multi_thread")]
async fn what_ours_cannot_compute_is_left_to_onnx_runtime() {
    // A small graph is tried whole; of a large one a product is, which says nothing of the rest.
    for (bundle, [from, to]) in [(world::tiny("int4"), NO_CAP), (world::slow(), NO_CAP), (world::slow(), SEVEN_HEADS)] {
        let (_dir, bundle) = altered(&bundle, from, to);
        let daemon = Setup::new(&bundle)
            .set("engine.kernels", "auto")
            .allow("the kernels cannot be compared")
            .allow("our kernels cannot compute the graph")
            // What ONNX Runtime itself says of it.
            .allow("SoftCap")
            .allow("LocalAttention")
            .start();
        let told = ["the kernels cannot be compared", "our kernels cannot compute the graph: ONNX Runtime's compute"]
            .iter()
            .any(|message| !daemon.lines(message).is_empty());
        // Where ONNX Runtime's product was the faster one, ours were never asked.
        assert!(told || compared(&daemon).is_some_and(|line| line["kernels"] == "onnxruntime"), "{}", bundle.display());
        assert!(onnx_runtimes(&daemon));
        let client = connect(&daemon).await;
        assert_eq!(generate(&client, greedy(&[2, 9, 30], 3)).await.unwrap().tokens.len(), 3);
    }
}

#[test]
fn what_neither_can_compute_is_refused_at_the_start() {
    let (_dir, bundle) = altered(&world::slow(), SEVEN_HEADS[0], SEVEN_HEADS[1]);
    let mut command = clean(binary("recurved"));
    let ended = run(command
        .args(["--listen", "127.0.0.1:0", "--bundle", path(&bundle)])
        .env("RECURVE_ENGINE__KERNELS", "recurve"));
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.contains("LocalAttention") && !ended.stderr.contains(" ready"), "{}", ended.stderr);
}
