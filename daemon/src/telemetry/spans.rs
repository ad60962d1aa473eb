//! Spans of calls, made when a call has ended: the call, and within it the time in the queue, the reading of the prompt, and
//! the making of tokens. A caller's trace goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter, SpanLimits,
};
use recurve_telemetry::otlp::SCOPE;
use recurve_telemetry::{ResourceAttributesWithSchema, group_spans_by_resource_and_scope, wire};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::observed::Observed;
use super::request::Request;

/// Spans that wait to be handed on, how many go at once, and after which time.
const QUEUE: usize = 2048;
const BATCH: usize = 128;
const DELAY: Duration = Duration::from_secs(2);
/// Most bytes of what is asked and of what is answered in a span.
const MOST_CONTENT: usize = 4096;

/// The call that a caller's trace comes from (W3C Trace Context).
#[derive(Debug, Clone)]
pub struct Parent(Context);

impl Parent {
    /// Reads the headers `traceparent` and `tracestate`; none where they are malformed: a new trace begins then.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut headers = HashMap::from([("traceparent".to_owned(), parent.to_owned())]);
        if let Some(state) = state {
            headers.insert("tracestate".to_owned(), state.to_owned());
        }
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        context.span().span_context().is_valid().then_some(Self(context))
    }

    /// The trace's id.
    pub fn trace(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    fn sampled(&self) -> bool {
        self.0.span().span_context().is_sampled()
    }
}

/// What is asked and answered: the beginning of each.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The prompt, or the turns.
    pub input: String,
    /// The answer so far.
    pub output: String,
}

impl Content {
    /// What is asked.
    pub fn asked(input: String) -> Self {
        Self { input: beginning(input), output: String::new() }
    }

    /// More of the answer.
    pub fn answered(&mut self, text: &str) {
        if self.output.len() < MOST_CONTENT {
            self.output = beginning(std::mem::take(&mut self.output) + text);
        }
    }
}

fn beginning(mut text: String) -> String {
    if text.len() > MOST_CONTENT {
        let end = (0..=MOST_CONTENT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A call that ended.
#[derive(Debug)]
pub struct CallSpan<'a> {
    /// Such as `Generate`.
    pub method: &'static str,
    /// The request's id.
    pub id: Uuid,
    /// When it was accepted.
    pub begun: SystemTime,
    /// Whose trace goes on.
    pub parent: Option<Parent>,
    /// Why it ended.
    pub finish: &'static str,
    /// Its status.
    pub status: &'static str,
    /// What else is known.
    pub request: Request<'a>,
    /// Where it is configured.
    pub content: Option<Content>,
}

/// Makes spans.
#[derive(Debug)]
pub(super) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Spans {
    /// Spans go to `outbox`, as messages for a collector.
    pub(super) fn new(
        resource: Resource,
        outbox: mpsc::Sender<wire::trace::v1::ResourceSpans>,
        observed: Arc<Observed>,
    ) -> Self {
        let exporter = Exporter { resource: (&resource).into(), outbox, observed };
        // All of it is set here: the library would read the environment, and the configuration was asked already.
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_span_limits(SpanLimits::default())
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        Self { tracer: provider.tracer(SCOPE), provider }
    }

    /// Hands on what was made. Blocks.
    pub(super) fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::debug!(%error, "the last spans are not handed on");
        }
    }

    /// A call has ended.
    pub(super) fn call(&self, call: CallSpan<'_>) {
        let context = call.parent.as_ref().map(|parent| parent.0.clone()).unwrap_or_default();
        let (begun, end) = (call.begun, call.begun + call.request.total);
        let builder = self
            .tracer
            .span_builder(format!("recurve.v1.Inference/{}", call.method))
            .with_kind(SpanKind::Server)
            .with_start_time(begun)
            .with_attributes(attributes(&call));
        let mut span = self.tracer.build_with_context(builder, &context);
        if call.status != "OK" {
            span.set_status(Status::error(""));
        }
        let context = context.with_remote_span_context(span.span_context().clone());
        let timings = call.request.timings;
        let mut at = begun;
        for (name, took) in [("queue", timings.queue), ("prefill", timings.prefill), ("decode", timings.decode)] {
            if took > Duration::ZERO {
                // Between reading and making tokens, the first one was chosen.
                let from = if name == "decode" { begun + timings.time_to_first_token } else { at };
                let part = self.tracer.span_builder(name).with_kind(SpanKind::Internal).with_start_time(from);
                self.tracer.build_with_context(part, &context).end_with_timestamp(from + took);
                at = from + took;
            }
        }
        // The call's clock and the engine's begin microseconds apart.
        span.end_with_timestamp(end.max(at));
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        // What cannot be handed on within its time is lost, as at any end.
        let _ = self.provider.shutdown_with_timeout(Duration::from_secs(1));
    }
}

/// Whether spans are made of a call: as its caller decided, or of so many in a hundred.
pub(super) fn sampled(parent: Option<&Parent>, id: Uuid, percent: u64) -> bool {
    match parent {
        Some(parent) => parent.sampled(),
        // The end of a UUIDv7 is random.
        None => (id.as_u128() % 100) < u128::from(percent),
    }
}

fn attributes(call: &CallSpan<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", format!("recurve.v1.Inference/{}", call.method)),
        KeyValue::new("rpc.response.status_code", call.status),
        KeyValue::new("gen_ai.response.id", call.id.to_string()),
    ];
    if call.status != "OK" {
        attributes.push(KeyValue::new("error.type", call.status));
    }
    if !call.request.operation.is_empty() && call.status == "OK" {
        let finish = opentelemetry::Value::Array(vec![opentelemetry::StringValue::from(call.finish)].into());
        attributes.push(KeyValue::new("gen_ai.response.finish_reasons", finish));
    }
    if !call.request.operation.is_empty() {
        attributes.extend(call.request.attributes());
    }
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    attributes.push(KeyValue::new("gen_ai.usage.input_tokens", count(call.request.usage.prompt_tokens)));
    attributes.push(KeyValue::new("gen_ai.usage.output_tokens", count(call.request.usage.completion_tokens)));
    if let Some(content) = &call.content {
        attributes.push(KeyValue::new("recurve.content", true));
        attributes.push(KeyValue::new("gen_ai.input.messages", content.input.clone()));
        attributes.push(KeyValue::new("gen_ai.output.messages", content.output.clone()));
    }
    attributes
}

/// Hands spans on, as a collector takes them.
#[derive(Debug)]
struct Exporter {
    resource: ResourceAttributesWithSchema,
    outbox: mpsc::Sender<wire::trace::v1::ResourceSpans>,
    observed: Arc<Observed>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let groups = group_spans_by_resource_and_scope(batch, &self.resource);
        for spans in groups {
            // More than the disk takes: spans are the first that may go.
            if let Err(error) = self.outbox.try_send(spans) {
                let (mpsc::error::TrySendError::Full(spans) | mpsc::error::TrySendError::Closed(spans)) = error;
                self.observed.dropped("full", prost::Message::encoded_len(&spans) as u64);
            }
        }
        Ok(())
    }
}
