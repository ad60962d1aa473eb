//! `engine.kernels`: whose kernels compute, and that the log says so.

use recurve_tests::client::{connect, generate, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::world;
use serde_json::Value;

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
