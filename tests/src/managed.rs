//! Daemons that keep models: what tests ask of them.

use std::path::Path;

use recurve_bundle::Bundle;
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{channel, connect, generate, greedy};
use crate::daemon::Daemon;
use crate::process::{Ended, agent_cli, run};
use crate::world::path;

/// Runs `agent-cli` against a daemon.
pub fn ask(daemon: &Daemon, args: &[&str]) -> Ended {
    run(agent_cli(args).args(["--on", &daemon.address]))
}

/// Deploys a bundle; what the command prints as JSON.
pub fn deploy(daemon: &Daemon, bundle: &Path) -> Value {
    ask(daemon, &["deploy", path(bundle), "--format", "json"]).json()
}

/// Digest and role of each model.
pub fn models(daemon: &Daemon) -> Vec<(String, &'static str)> {
    let listed = ask(daemon, &["models", "--format", "json"]).json();
    let role = |model: &Value| match (model["active"] == true, model["previous"] == true) {
        (true, _) => "active",
        (_, true) => "previous",
        _ => "kept",
    };
    let models = listed.as_array().expect("what a daemon answers").iter();
    models.map(|model| (model["bundle"].as_str().expect("what a daemon answers").to_owned(), role(model))).collect()
}

/// A bundle's digest.
pub fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).expect("what a daemon answers").digest().to_string()
}

/// The health of the node as a whole.
pub async fn health(daemon: &Daemon) -> ServingStatus {
    let mut client = HealthClient::new(channel(daemon).await);
    client
        .check(HealthCheckRequest { service: String::new() })
        .await
        .expect("what a daemon answers")
        .into_inner()
        .status()
}

/// The bundle that answers.
pub async fn served(daemon: &Daemon) -> String {
    generate(&connect(daemon).await, greedy(&[2, 9, 30], 3)).await.expect("what a daemon answers").finish.bundle
}

/// Why the daemon went back from a model.
pub fn failure(daemon: &Daemon, bundle: &Path) -> Option<String> {
    let listed = ask(daemon, &["models", "--format", "json"]).json();
    let model = listed
        .as_array()
        .expect("what a daemon answers")
        .iter()
        .find(|model| model["bundle"] == digest(bundle).as_str())
        .cloned();
    model.expect("what a daemon answers")["failure"].as_str().map(str::to_owned)
}
