//! What a node tells of its models and of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use recurve_proto::v1;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;

use crate::node::{Node, Phase};
use crate::store::{Listed, Stage, Store};

/// How often it is looked whether something changed that tells nobody.
const LOOK: Duration = Duration::from_secs(1);

/// The models of a store. Reads the disk.
pub(super) fn models(store: &Store) -> Vec<v1::Model> {
    let named = |listed: Listed| {
        let name = store.bundle(listed.bundle).ok().map(|bundle| bundle.name().to_owned());
        model(listed, name)
    };
    store.models().into_iter().map(named).collect()
}

fn model(listed: Listed, name: Option<String>) -> v1::Model {
    let stage = match listed.kept.stage {
        Stage::Received => v1::ModelStage::Received,
        Stage::Verified => v1::ModelStage::Verified,
        Stage::Prepared => v1::ModelStage::Prepared,
        Stage::Confirmed => v1::ModelStage::Confirmed,
    };
    let (kernels, tokens_per_second) =
        listed.kept.prepared.map_or_else(Default::default, |prepared| (prepared.kernels, prepared.tokens_per_second));
    v1::Model {
        bundle: listed.bundle.to_string(),
        name: name.unwrap_or_default(),
        stage: stage.into(),
        bytes: listed.kept.bytes,
        active: listed.active,
        previous: listed.previous,
        failure: listed.kept.failure.unwrap_or_default(),
        kernels,
        tokens_per_second,
    }
}

/// How the node is.
pub(super) fn of(node: &Node) -> v1::NodeState {
    // Only a duration of more than 10,000 years does not fit.
    let wire = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    let mut state = v1::NodeState {
        instance: node.instance().to_string(),
        probation: node.probation().and_then(wire),
        uptime: wire(node.uptime()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::NodeState::default()
    };
    if let Phase::Serving(serving) = node.phase() {
        state.serving = true;
        state.bundle.clone_from(&serving.model.bundle);
        state.answered = serving.counts.answered.load(Ordering::Relaxed);
        state.failed = serving.counts.failed.load(Ordering::Relaxed);
    }
    state
}

/// All of it at once, and again whenever it changed. Ends when the node stops.
pub(super) fn watch(
    node: Arc<Node>,
    store: Arc<Store>,
) -> impl Stream<Item = Result<v1::WatchModelsResponse, Status>> + Send {
    let watched = (node.phases(), store.changes());
    unfold((node, store, watched, None), async |(node, store, mut watched, last)| {
        loop {
            watched.0.borrow_and_update();
            watched.1.borrow_and_update();
            if matches!(node.phase(), Phase::Stopping) {
                return None;
            }
            let reading = Arc::clone(&store);
            let models = spawn_blocking(move || models(&reading)).await.ok()?;
            let now = v1::WatchModelsResponse { models, state: Some(of(&node)) };
            if last.as_ref().is_none_or(|last| differs(last, &now)) {
                return Some((Ok(now.clone()), (node, store, watched, Some(now))));
            }
            let changed = async {
                tokio::select! {
                    _ = watched.0.changed() => {}
                    _ = watched.1.changed() => {}
                }
            };
            let _ = timeout(LOOK, changed).await;
        }
    })
}

/// Whether there is something new besides the time that passes.
fn differs(a: &v1::WatchModelsResponse, b: &v1::WatchModelsResponse) -> bool {
    let still = |response: &v1::WatchModelsResponse| {
        let mut response = response.clone();
        if let Some(state) = &mut response.state {
            state.uptime = None;
            state.probation = state.probation.map(|_| prost_types::Duration::default());
        }
        response
    };
    still(a) != still(b)
}
