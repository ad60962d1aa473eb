//! What became of a call: its line in the log, its place among the metrics, its spans. All of it when the call is dropped,
//! however it ended.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Extensions;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{debug, error, info};
use uuid::Uuid;

use super::peer::Here;
use super::status::{CallError, code_name};
use crate::engine::job::{ClientId, Delta, Failure, Timings, Usage};
use crate::node::{Counts, Node, Serving};
use crate::request::RequestError;
use crate::telemetry::{CallSpan, Content, Outcome, Parent, Request};

/// What remains of a call whose caller goes away.
const CANCELLED: &str = "cancelled";

/// Which method is called, and how much is told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    /// Such as `Generate`.
    pub name: &'static str,
    /// How much the log says.
    pub weight: Weight,
    /// `chat` or `text_completion` where text is asked for.
    pub operation: Option<&'static str>,
}

/// How much the log says of a method's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// One line at INFO.
    Engine,
    /// One line at DEBUG.
    Light,
}

/// What is known of a call so far.
#[derive(Debug)]
pub(super) struct Record {
    method: Method,
    id: Uuid,
    client: ClientId,
    here: Here,
    parent: Option<Parent>,
    begun: Instant,
    at: SystemTime,
    outcome: &'static str,
    status: &'static str,
    usage: Usage,
    timings: Timings,
    node: Arc<Node>,
    serving: Option<Serving>,
    /// What is asked and answered, where that is configured.
    content: Option<Content>,
}

impl Record {
    pub(super) fn new(
        method: Method,
        id: Uuid,
        client: ClientId,
        node: &Arc<Node>,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Self {
        let header = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        Self {
            method,
            id,
            client,
            here: extensions.get::<Here>().cloned().unwrap_or_default(),
            parent: header("traceparent").and_then(|parent| Parent::read(parent, header("tracestate"))),
            begun: Instant::now(),
            at: SystemTime::now(),
            // What remains if the client goes away.
            outcome: CANCELLED,
            status: code_name(Code::Cancelled),
            usage: Usage::default(),
            timings: Timings::default(),
            node: Arc::clone(node),
            serving: None,
            content: None,
        }
    }

    /// What answers it.
    pub(super) fn serves(&mut self, serving: &Serving) {
        self.serving = Some(serving.clone());
    }

    pub(super) fn asked(&mut self, prompt: impl FnOnce() -> String) {
        if self.node.telemetry().keeps_content() {
            self.content = Some(Content::asked(prompt()));
        }
    }

    /// The prompt has so many tokens.
    pub(super) fn reads(&mut self, tokens: usize) {
        self.usage.prompt_tokens = u64::try_from(tokens).unwrap_or_default();
    }

    pub(super) fn progressed(&mut self, delta: &Delta) {
        if self.usage.completion_tokens == 0 && !delta.tokens.is_empty() {
            self.timings.time_to_first_token = self.begun.elapsed();
        }
        self.usage.completion_tokens += u64::try_from(delta.tokens.len()).unwrap_or_default();
        if let Some(content) = &mut self.content {
            content.answered(&delta.text);
        }
    }

    pub(super) fn finished(&mut self, outcome: &'static str, usage: Usage, timings: Timings) {
        self.outcome = outcome;
        self.status = code_name(Code::Ok);
        if let (Weight::Engine, Some(serving)) = (self.method.weight, &self.serving) {
            Counts::add(&serving.counts.answered);
        }
        self.usage = usage;
        self.timings = timings;
    }

    pub(super) fn failed(&mut self, failure: &CallError) -> Status {
        let status = failure.status(self.id);
        self.outcome = code_name(status.code());
        self.status = self.outcome;
        let by_model = matches!(
            failure,
            CallError::Failed(Failure::Engine(_) | Failure::NotFinite { .. })
                | CallError::Request(RequestError::Bundle(_))
                | CallError::Abandoned
        );
        if let (true, Some(serving)) = (by_model, &self.serving) {
            Counts::add(&serving.counts.failed);
        }
        match failure {
            CallError::Request(RequestError::Bundle(_)) | CallError::Failed(Failure::NotFinite { .. }) => {
                error!(request = %self.id, "the bundle cannot be used: {}", status.message());
            }
            _ => debug!(request = %self.id, code = self.outcome, "refused: {}", status.message()),
        }
        status
    }

    fn line(&self, total: Duration) {
        let ms = |duration: Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
        let bundle = self.serving.as_ref().map(|serving| serving.model.bundle.as_str());
        let trace = self.parent.as_ref().map(Parent::trace);
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    method = self.method.name,
                    request = %self.id,
                    client = %self.client.0,
                    outcome = self.outcome,
                    status = self.status,
                    bundle,
                    trace,
                    prompt_tokens = self.usage.prompt_tokens,
                    completion_tokens = self.usage.completion_tokens,
                    queue_ms = ms(self.timings.queue),
                    first_token_ms = ms(self.timings.time_to_first_token),
                    total_ms = ms(total),
                    "request"
                )
            };
        }
        match self.method.weight {
            Weight::Engine => line!(info),
            Weight::Light => line!(debug),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.begun.elapsed();
        self.line(total);
        let telemetry = self.node.telemetry();
        let model = self.serving.as_ref().map(|serving| serving.model.name.as_str());
        let outcome = match self.status {
            "OK" => Outcome::Answered,
            status => Outcome::Failed(status),
        };
        let request = Request {
            operation: self.method.operation.unwrap_or_default(),
            model,
            server: (&self.here.host, self.here.port),
            outcome,
            usage: self.usage,
            timings: self.timings,
            total,
        };
        if self.method.operation.is_some() {
            telemetry.request(&request);
        }
        telemetry.span(|| CallSpan {
            method: self.method.name,
            id: self.id,
            begun: self.at,
            parent: self.parent.clone(),
            finish: self.outcome,
            status: self.status,
            request,
            content: self.content.take(),
        });
    }
}
