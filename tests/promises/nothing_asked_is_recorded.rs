//! Prompts and replies are in no log, no history, no metric and no span, unless that is configured.

use std::path::Path;

use recurve_tests::client::{chat, connect, generate};
use recurve_tests::daemon::Setup;
use recurve_tests::node::history;
use recurve_tests::world;

/// Words that are nowhere else.
const ASKED: &str = "dim the hall lights to 37 xylophone";

fn setup(dir: &Path, collector: &str) -> Setup {
    Setup::new(&world::demo())
        .unix()
        .set("telemetry.dir", dir.display())
        .set("telemetry.interval", 1)
        .set("telemetry.endpoint", collector)
        // What the configuration says counts, whatever the environment has.
        .env("OTEL_TRACES_SAMPLER", "always_off")
        .set("telemetry.traces", 100)
        .set("log.level", "trace")
        .allow("the collector takes nothing")
        .allow("telemetry.content is on")
}

/// Whether a file of the folder holds these words.
fn holds(dir: &Path, words: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_what_is_asked_nor_what_is_answered() {
    for content in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        // Nothing listens at port 9: what is to be sent stays on the disk, where it can be looked at.
        let daemon = setup(dir.path(), "http://127.0.0.1:9").set("telemetry.content", content).start();
        let answer = generate(&connect(&daemon).await, chat(ASKED)).await.unwrap();
        assert!(!answer.text.is_empty());
        let (_, records) = history(&daemon, 0).await;
        let recorded = format!("{records:?}");
        assert!(!recorded.contains("xylophone") && !recorded.contains(&answer.text), "the history never has it");
        daemon.terminate();
        daemon.wait_for("stopped");
        let logged = daemon.has_logged("xylophone") || daemon.has_logged(&answer.text);
        assert!(!logged, "the log never has it");
        assert!(daemon.ended().success());
        assert!(holds(dir.path(), "recurve.v1.Inference/Generate"), "spans wait on the disk");
        assert_eq!(holds(dir.path(), "xylophone"), content, "spans have it where that is configured");
        assert_eq!(holds(dir.path(), "recurve.content"), content, "and are marked then");
    }
}
