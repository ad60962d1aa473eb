//! How a node is now, for who watches it.

use std::time::SystemTime;

use recurve_proto::v1;
use recurve_telemetry::catalogue::name;
use recurve_telemetry::histogram;
use recurve_telemetry::wire::metrics::v1::{ResourceMetrics, metric::Data};

use super::state;
use crate::node::{Node, Phase};
use crate::telemetry::Readings;

/// How many requests are left.
pub(super) fn drain(node: &Node) -> v1::DrainResponse {
    let mut left = v1::DrainResponse { draining: node.is_draining(), ..v1::DrainResponse::default() };
    if let Phase::Serving(serving) = node.phase() {
        left.waiting = narrow(serving.admission.waiting() as u64);
        left.active = narrow(serving.meter.active_rows());
    }
    left
}

/// How it is. Reads files of the system.
pub(super) fn of(node: &Node) -> v1::WatchNodeResponse {
    let metrics = node.telemetry().read();
    let readings = node.telemetry().observed().readings();
    let tokens = node.tokens().into_values().fold((0, 0), |sum, tokens| (sum.0 + tokens.0, sum.1 + tokens.1));
    let durations = Durations::of(&metrics);
    let mut now = v1::WatchNodeResponse {
        state: Some(state::of(node)),
        draining: node.is_draining(),
        loading: matches!(node.phase(), Phase::Loading | Phase::Switching),
        tokens_in: tokens.0,
        tokens_out: tokens.1,
        requests: durations.requests,
        errors: durations.errors,
        time_to_first_token: Some(total(&metrics, name::TIME_TO_FIRST_TOKEN)),
        time_per_output_token: Some(total(&metrics, name::TIME_PER_OUTPUT_TOKEN)),
        alarms: node.telemetry().alarms().into_iter().map(str::to_owned).collect(),
        at: Some(SystemTime::now().into()),
        ..v1::WatchNodeResponse::default()
    };
    of_machine(&mut now, &readings);
    if let Phase::Serving(serving) = node.phase() {
        now.model.clone_from(&serving.model.name);
        serving.kernels.clone_into(&mut now.kernels);
        now.active_rows = narrow(serving.meter.active_rows());
        now.rows = narrow(serving.rows as u64);
        now.waiting = narrow(serving.admission.waiting() as u64);
        now.queue = narrow(serving.admission.limit() as u64);
        now.prefill_backlog = serving.meter.prefill_backlog();
    }
    now
}

fn of_machine(now: &mut v1::WatchNodeResponse, readings: &Readings) {
    let idle: f64 =
        readings.cpu.iter().filter(|(mode, _)| matches!(*mode, "idle" | "iowait")).map(|(_, share)| share).sum();
    if !readings.cpu.is_empty() {
        now.cpu = (1.0 - idle).clamp(0.0, 1.0) as f32;
    }
    if let Some(memory) = readings.memory {
        now.memory_used = memory.used;
        now.memory = memory.total;
    }
    now.process_memory = readings.process_memory.unwrap_or_default();
    now.temperatures = readings
        .temperatures
        .iter()
        .map(|measured| v1::Temperature {
            sensor: measured.sensor.location.clone().unwrap_or_else(|| measured.sensor.name.clone()),
            celsius: measured.value as f32,
        })
        .collect();
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A histogram over all attributes.
fn total(metrics: &[ResourceMetrics], name: &str) -> v1::Histogram {
    let mut sum = v1::Histogram::default();
    for point in points(metrics, name) {
        let counts = point.bucket_counts.clone();
        histogram::add(&mut sum, &v1::Histogram { counts, sum: point.sum.unwrap_or_default() });
    }
    histogram::trimmed(sum)
}

/// Requests that ended, and those that failed.
#[derive(Default)]
struct Durations {
    requests: u64,
    errors: u64,
}

impl Durations {
    fn of(metrics: &[ResourceMetrics]) -> Self {
        let mut durations = Self::default();
        for point in points(metrics, name::REQUEST_DURATION) {
            durations.requests += point.count;
            if point.attributes.iter().any(|attribute| attribute.key == "error.type") {
                durations.errors += point.count;
            }
        }
        durations
    }
}

fn points<'a>(
    metrics: &'a [ResourceMetrics],
    name: &'a str,
) -> impl Iterator<Item = &'a recurve_telemetry::wire::metrics::v1::HistogramDataPoint> {
    let all = metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
    all.filter(move |metric| metric.name == name).flat_map(|metric| match &metric.data {
        Some(Data::Histogram(histogram)) => histogram.data_points.as_slice(),
        _ => &[],
    })
}
