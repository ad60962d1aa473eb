//! What became of a call: its line in the log, its place among the metrics, its spans. All of it when the call is dropped,
//! however it ended.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Extensions;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{debug, error, info};
use uuid::Uuid;

use super::cause::Cause;
use super::peer::Here;
use super::status::{CallError, code_name};
use crate::engine::clock::Clock;
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

/// What knows where a call's time went.
#[derive(Debug)]
enum Spent {
    /// It waits: for a model, for its turn to be tokenized.
    Waiting,
    /// It was refused, at once or after its text was looked at: it did not wait for the engine.
    Refused,
    /// The engine has it, or its queue.
    Engine(Arc<Clock>),
    /// It was answered.
    Answered(Timings),
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
    spent: Spent,
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
            spent: Spent::Waiting,
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

    /// The engine's queue has the request.
    pub(super) fn waits(&mut self, clock: Arc<Clock>) {
        self.spent = Spent::Engine(clock);
    }

    /// The prompt has so many tokens.
    pub(super) fn reads(&mut self, tokens: usize) {
        self.usage.prompt_tokens = u64::try_from(tokens).unwrap_or_default();
    }

    pub(super) fn progressed(&mut self, delta: &Delta) {
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
        self.spent = Spent::Answered(timings);
    }

    pub(super) fn failed(&mut self, failure: &CallError) -> Status {
        let status = failure.status(self.id);
        self.outcome = code_name(status.code());
        self.status = self.outcome;
        let waited = matches!(failure, CallError::Deadline | CallError::Loading | CallError::Stopping);
        if let (Spent::Waiting, false) = (&self.spent, waited) {
            self.spent = Spent::Refused;
        }
        if let (Cause::Model, Some(serving)) = (failure.cause(), &self.serving) {
            Counts::add(&serving.counts.failed);
        }
        match failure {
            CallError::Failed(Failure::NotFinite { .. }) => {
                error!(request = %self.id, "the bundle cannot be used: {}", status.message());
            }
            // No line that demands a person: a caller can send such a text as often as it likes.
            CallError::Request(RequestError::Bundle(_)) => {
                info!(request = %self.id, "the bundle cannot read this request: {}", status.message());
            }
            _ => debug!(request = %self.id, code = self.outcome, "refused: {}", status.message()),
        }
        status
    }

    /// Where the time went; and how long the request waited, where it was given to the engine's queue.
    fn timings(&self, total: Duration) -> (Timings, Option<Duration>) {
        match &self.spent {
            Spent::Answered(timings) => (*timings, Some(timings.queue)),
            Spent::Engine(clock) => {
                let timings = clock.timings();
                // The engine's clock goes on while the call ends.
                let queue = timings.queue.min(total);
                (Timings { queue, ..timings }, Some(queue))
            }
            Spent::Waiting if self.method.weight == Weight::Engine => {
                (Timings { queue: total, total, ..Timings::default() }, None)
            }
            Spent::Waiting | Spent::Refused => (Timings::default(), None),
        }
    }

    fn line(&self, total: Duration, timings: &Timings) {
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
                    queue_ms = ms(timings.queue),
                    first_token_ms = ms(timings.time_to_first_token),
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
        let (timings, waited) = self.timings(total);
        self.line(total, &timings);
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
            timings,
            waited,
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
