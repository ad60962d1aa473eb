//! OpenTelemetry's instruments, made from the list of metrics, and the reader that tells how they stand.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality};
use recurve_telemetry::catalogue::{Kind, METRICS, Metric, find, name};
use recurve_telemetry::otlp::SCOPE;
use recurve_telemetry::wire::collector::metrics::v1::ExportMetricsServiceRequest;
use recurve_telemetry::wire::metrics::v1::ResourceMetrics;
use tracing::warn;

use super::observed::Observed;
use super::request::Request;

/// All instruments.
#[derive(Debug)]
pub(super) struct Instruments {
    provider: SdkMeterProvider,
    reader: Reader,
    prometheus: prometheus::Registry,
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
    output_token: Histogram<f64>,
    queue_wait: Histogram<f64>,
    call: Histogram<f64>,
}

impl Instruments {
    /// Makes them. Whatever stands at a moment is asked of `observed` when it is read.
    pub(super) fn new(resource: Resource, observed: &Arc<Observed>) -> Self {
        let reader = Reader(Arc::new(ManualReader::builder().with_temporality(Temporality::Cumulative).build()));
        let registry = prometheus::Registry::new();
        let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(reader.clone());
        let shown = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build();
        match shown {
            Ok(shown) => builder = builder.with_reader(shown),
            Err(error) => warn!(%error, "metrics cannot be shown to Prometheus"),
        }
        let provider = builder.build();
        let meter = provider.meter(SCOPE);
        for metric in METRICS {
            observe(&meter, metric, observed);
        }
        Self {
            duration: histogram(&meter, name::REQUEST_DURATION),
            first_token: histogram(&meter, name::TIME_TO_FIRST_TOKEN),
            output_token: histogram(&meter, name::TIME_PER_OUTPUT_TOKEN),
            queue_wait: histogram(&meter, name::QUEUE_WAIT),
            call: histogram(&meter, name::CALL_DURATION),
            provider,
            reader,
            prometheus: registry,
        }
    }

    /// How all metrics stand.
    pub(super) fn read(&self) -> Vec<ResourceMetrics> {
        let mut readings = data::ResourceMetrics::default();
        match self.reader.collect(&mut readings) {
            Ok(()) => ExportMetricsServiceRequest::from(&readings).resource_metrics,
            Err(error) => {
                warn!(%error, "the metrics cannot be read");
                Vec::new()
            }
        }
    }

    /// All metrics as Prometheus reads them.
    pub(super) fn prometheus(&self) -> &prometheus::Registry {
        &self.prometheus
    }

    /// Records a request that ended.
    pub(super) fn request(&self, request: &Request<'_>) {
        let attributes = request.attributes();
        let times = request.times();
        if let Some(wait) = times.queue {
            self.queue_wait.record(wait.as_secs_f64(), &attributes[..1]);
        }
        if let Some(first) = times.first_token {
            self.first_token.record(first.as_secs_f64(), &attributes);
        }
        if let Some(each) = times.output_token {
            self.output_token.record(each.as_secs_f64(), &attributes);
        }
        let failed = request.error().map(|error| KeyValue::new("error.type", error));
        let attributes: Vec<KeyValue> = attributes.into_iter().chain(failed).collect();
        self.duration.record(times.total.as_secs_f64(), &attributes);
    }

    /// Records a call that ended.
    pub(super) fn call(&self, method: &str, status: &'static str, took: Duration) {
        let known = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.response.status_code", status),
            KeyValue::new("error.type", status),
        ];
        let failed = status != "OK";
        self.call.record(took.as_secs_f64(), &known[..if failed { 4 } else { 3 }]);
    }
}

impl Drop for Instruments {
    fn drop(&mut self) {
        // Nothing is left to be done: what was to be exported is on its way.
        let _ = self.provider.shutdown();
    }
}

fn histogram(meter: &Meter, name: &'static str) -> Histogram<f64> {
    let metric = find(name);
    let described = |metric: &Metric| (metric.unit, metric.doc, metric.bounds().to_vec());
    let (unit, doc, bounds) = metric.map(described).unwrap_or_default();
    meter.f64_histogram(name).with_unit(unit).with_description(doc).with_boundaries(bounds).build()
}

/// Has the metric asked of `observed`, unless it is a histogram.
fn observe(meter: &Meter, metric: &'static Metric, observed: &Arc<Observed>) {
    let (name, unit, doc) = (metric.name, metric.unit, metric.doc);
    let observed = Arc::clone(observed);
    let ask = move |instrument: &dyn AsyncInstrument<f64>| {
        observed.each(name, |value, attributes| instrument.observe(value, attributes));
    };
    match metric.kind {
        Kind::Histogram(_) => {}
        Kind::Gauge => {
            meter.f64_observable_gauge(name).with_unit(unit).with_description(doc).with_callback(ask).build();
        }
        Kind::UpDownCounter => {
            meter.f64_observable_up_down_counter(name).with_unit(unit).with_description(doc).with_callback(ask).build();
        }
        Kind::Counter => {
            meter.f64_observable_counter(name).with_unit(unit).with_description(doc).with_callback(ask).build();
        }
    }
}

/// Reads the metrics when it is asked to.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, readings: &mut data::ResourceMetrics) -> OTelSdkResult {
        self.0.collect(readings)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
