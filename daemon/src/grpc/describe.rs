//! What a node is, for who looks at it once.

use recurve_proto::v1;

use super::node::numbers;
use super::state;
use crate::node::{Node, Phase};
use crate::operate::Operations;

/// Hardware, versions, model, limits.
pub(super) fn of(node: &Node, operations: &Operations) -> v1::DescribeNodeResponse {
    let settings = &operations.settings;
    let machine = node.telemetry().observed().machine();
    let (model, kernels) = match node.phase() {
        Phase::Serving(serving) => (serving.model.name.clone(), serving.kernels.to_owned()),
        _ => Default::default(),
    };
    v1::DescribeNodeResponse {
        host: machine.hostname.clone(),
        hardware: machine.board.clone(),
        cpu: machine.cpu.clone(),
        cores: machine.cores,
        instruction_set: recurve_runtime::instruction_set().to_owned(),
        memory: machine.memory,
        os: machine.os.clone(),
        kernel: machine.kernel.clone(),
        architecture: machine.architecture.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: node.onnxruntime().unwrap_or_default().to_owned(),
        listen: operations.listen.clone(),
        state: Some(state::of(node)),
        model,
        kernels,
        slots: u32::try_from(settings.engine.slots).unwrap_or(u32::MAX),
        queue: u32::try_from(settings.engine.queue).unwrap_or(u32::MAX),
        limits: numbers([
            ("limits.max_message_bytes", settings.limits.max_message_bytes),
            ("limits.max_prompt_tokens", settings.limits.max_prompt_tokens),
            ("limits.max_tokens", settings.limits.max_tokens),
            ("limits.max_score_tokens", settings.limits.max_score_tokens),
            ("limits.connections", settings.limits.connections),
        ]),
        settings: operations.now(),
        store: node.telemetry().history().store().to_string(),
        host_uptime: machine.uptime().and_then(|uptime| uptime.try_into().ok()),
        draining: node.is_draining(),
    }
}
