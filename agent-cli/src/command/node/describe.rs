//! `agent-cli node describe`.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use recurve_proto::v1::DescribeNodeResponse;
use serde::Serialize;

use super::Asked;
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::target::Address;
use crate::top::words::lasting;
use crate::view::table;

/// Describes each device.
pub(super) async fn run(asked: Asked) -> Result<(), Failure> {
    let (format, many) = (asked.format, asked.many);
    let ask = |address: Address| async move { Node::at(&address, PATIENCE).await?.describe().await };
    asked
        .each(ask, |name, node| match format {
            Format::Json => output::json(&Described::of(name, &node)),
            Format::Text if many => output::line(&format!("{name}\n{}\n", page(&node))),
            Format::Text => output::line(&page(&node)),
        })
        .await
}

fn time(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(duration).ok())
}

/// A line for each thing that is known.
fn page(node: &DescribeNodeResponse) -> String {
    let state = node.state.clone().unwrap_or_default();
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let since = |duration| time(duration).map_or_else(|| "unknown".to_owned(), lasting);
    let serving = match (node.draining, state.serving) {
        (true, _) => "no: it takes no new requests until `agent-cli node resume`".to_owned(),
        (false, false) => "no".to_owned(),
        (false, true) => match time(state.probation) {
            Some(left) => format!("yes, on probation for {}", lasting(left)),
            None => "yes".to_owned(),
        },
    };
    let model = match (node.model.as_str(), node.kernels.as_str()) {
        ("", _) => "none".to_owned(),
        (model, "") => format!("{model} {}", table::digest(&state.bundle)),
        (model, kernels) => format!("{model} {}, kernels {kernels}", table::digest(&state.bundle)),
    };
    let mut lines = vec![
        ("host".to_owned(), format!("{}, up for {}", known(&node.host), since(node.host_uptime))),
        ("hardware".to_owned(), known(&node.hardware)),
        ("cpu".to_owned(), format!("{}, {} cores, {}", known(&node.cpu), node.cores, node.instruction_set)),
        ("memory".to_owned(), HumanBytes(node.memory).to_string()),
        ("system".to_owned(), format!("{}, Linux {}, {}", known(&node.os), node.kernel, node.architecture)),
        ("recurved".to_owned(), format!("{}, up for {}", node.version, since(state.uptime))),
        ("ONNX Runtime".to_owned(), known(&node.onnxruntime)),
        ("listens".to_owned(), node.listen.join(", ")),
        ("serving".to_owned(), serving),
        ("model".to_owned(), model),
        ("at once".to_owned(), format!("{} requests, and {} that wait", node.slots, node.queue)),
        ("history".to_owned(), known(&node.store)),
    ];
    lines.extend(node.limits.iter().map(|(name, limit)| (name.clone(), limit.to_string())));
    lines.extend(node.settings.iter().map(|(key, value)| (format!("setting {key}"), value.clone())));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (title, text) in lines {
        table.add_row([title, text]);
    }
    table.trim_fmt()
}

/// A device, for programs.
#[derive(Debug, Serialize)]
struct Described<'a> {
    device: &'a str,
    host: &'a str,
    hardware: &'a str,
    cpu: &'a str,
    cores: u32,
    instruction_set: &'a str,
    memory: u64,
    os: &'a str,
    kernel: &'a str,
    architecture: &'a str,
    version: &'a str,
    onnxruntime: &'a str,
    listen: &'a [String],
    instance: String,
    uptime_ms: Option<f64>,
    host_uptime_ms: Option<f64>,
    serving: bool,
    draining: bool,
    model: &'a str,
    bundle: String,
    kernels: &'a str,
    slots: u32,
    queue: u32,
    limits: &'a BTreeMap<String, u64>,
    settings: &'a BTreeMap<String, String>,
    store: &'a str,
}

impl<'a> Described<'a> {
    fn of(device: &'a str, node: &'a DescribeNodeResponse) -> Self {
        let state = node.state.clone().unwrap_or_default();
        let ms = |duration| time(duration).map(|duration| duration.as_secs_f64() * 1e3);
        Self {
            device,
            host: &node.host,
            hardware: &node.hardware,
            cpu: &node.cpu,
            cores: node.cores,
            instruction_set: &node.instruction_set,
            memory: node.memory,
            os: &node.os,
            kernel: &node.kernel,
            architecture: &node.architecture,
            version: &node.version,
            onnxruntime: &node.onnxruntime,
            listen: &node.listen,
            instance: state.instance,
            uptime_ms: ms(state.uptime),
            host_uptime_ms: ms(node.host_uptime),
            serving: state.serving,
            draining: node.draining,
            model: &node.model,
            bundle: state.bundle,
            kernels: &node.kernels,
            slots: node.slots,
            queue: node.queue,
            limits: &node.limits,
            settings: &node.settings,
            store: &node.store,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_say_is_unknown() {
        let node = DescribeNodeResponse {
            host: "gw-1".to_owned(),
            cores: 4,
            memory: 8 << 30,
            settings: [("log.level".to_owned(), "info".to_owned())].into(),
            draining: true,
            ..DescribeNodeResponse::default()
        };
        let page = page(&node);
        let line = |title: &str| page.lines().find(|line| line.trim_start().starts_with(title)).unwrap().to_owned();
        assert!(line("host").ends_with("gw-1, up for unknown"), "{page}");
        assert!(line("hardware").ends_with("unknown"), "{page}");
        assert!(line("memory").ends_with("8.00 GiB"), "{page}");
        assert!(line("serving").contains("no: it takes no new requests"), "{page}");
        assert!(line("setting log.level").ends_with("info"), "{page}");
    }
}
