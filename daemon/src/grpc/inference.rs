//! `recurve.v1.Inference`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use prost::Message;
use recurve_proto::v1;
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::inference_server::{Inference, InferenceServer};
use tonic::{Request, Response, Status};

use super::call::Call;
use super::record::{Method, Weight};
use super::status::CallError;
use crate::admission::{Refusal, Ticket};
use crate::config::Limits;
use crate::engine::job::{
    Delta, Event, Failure, FinishReason, Finished, Job, Priority, Scored, Timings, TokenLogprobs, Usage, Work,
};
use crate::node::Node;
use crate::request::{Detokenize, Generate, Score, Tokenize};

/// The service for the routes. Larger messages are refused before they are decoded.
pub(super) fn service(node: &Arc<Node>, limits: &Limits) -> InferenceServer<Service> {
    InferenceServer::new(Service { node: Arc::clone(node) }).max_decoding_message_size(limits.max_message_bytes)
}

/// Answers calls with what the node serves.
#[derive(Debug)]
pub(super) struct Service {
    node: Arc<Node>,
}

impl Service {
    async fn begin<T: Message>(&self, method: Method, request: &Request<T>) -> Result<Call, Status> {
        let bytes = request.get_ref().encoded_len();
        Call::begin(method, bytes, &self.node, request.metadata(), request.extensions()).await
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Inference for Service {
    type GenerateStream = Answers;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Answers>, Status> {
        let mut call = self.begin(generate(request.get_ref()), &request).await?;
        let request = request.into_inner();
        match start_generation(&mut call, &request).await {
            Ok(ticket) => Ok(Response::new(answers(Answering { call, ticket, again: Some(request) }))),
            Err(error) => Err(call.failed(&error)),
        }
    }

    async fn score(&self, request: Request<v1::ScoreRequest>) -> Result<Response<v1::ScoreResponse>, Status> {
        let mut call = self.begin(other("Score", Weight::Engine), &request).await?;
        match score(&mut call, &request.into_inner()).await {
            Ok((tokens, scored)) => {
                call.finished("scored", scored.usage, scored.timings);
                Ok(Response::new(score_response(&call, tokens, scored)))
            }
            Err(error) => Err(call.failed(&error)),
        }
    }

    async fn tokenize(&self, request: Request<v1::TokenizeRequest>) -> Result<Response<v1::TokenizeResponse>, Status> {
        let mut call = self.begin(other("Tokenize", Weight::Light), &request).await?;
        match tokenize(&call, request.into_inner()).await {
            Ok(response) => {
                let prompt_tokens = count(response.tokens.len());
                call.finished("done", Usage { prompt_tokens, ..Usage::default() }, Timings::default());
                Ok(Response::new(response))
            }
            Err(error) => Err(call.failed(&error)),
        }
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let mut call = self.begin(other("Detokenize", Weight::Light), &request).await?;
        match detokenize(&call, request.into_inner()).await {
            Ok(text) => {
                call.finished("done", Usage::default(), Timings::default());
                Ok(Response::new(v1::DetokenizeResponse { text }))
            }
            Err(error) => Err(call.failed(&error)),
        }
    }
}

/// What `Generate` is called by the conventions.
fn generate(request: &v1::GenerateRequest) -> Method {
    let operation = match request.prompt {
        Some(Prompt::Chat(_)) => "chat",
        Some(Prompt::Text(_) | Prompt::Tokens(_)) | None => "text_completion",
    };
    Method { name: "Generate", weight: Weight::Engine, operation: Some(operation) }
}

fn other(name: &'static str, weight: Weight) -> Method {
    Method { name, weight, operation: None }
}

/// What is asked, as text.
fn asked(request: &v1::GenerateRequest) -> String {
    match &request.prompt {
        Some(Prompt::Text(text)) => text.clone(),
        Some(Prompt::Tokens(tokens)) => format!("{:?}", tokens.ids),
        Some(Prompt::Chat(chat)) => {
            let turn = |message: &v1::ChatMessage| format!("{}: {}", message.role, message.content);
            chat.messages.iter().map(turn).collect::<Vec<_>>().join("\n")
        }
        None => String::new(),
    }
}

/// Gives the engine a request: that of the model in whose place another one is put meanwhile is made for that one.
async fn start_generation(call: &mut Call, wire: &v1::GenerateRequest) -> Result<Ticket, CallError> {
    loop {
        let model = Arc::clone(&call.serving.model);
        let request = Generate::parse(wire.clone(), &model)?;
        let priority = request.priority;
        let generation = call.within(request.tokenized(&model)).await?;
        call.reads(generation.prompt.len());
        call.asked(|| asked(wire));
        match submit(call, priority, Work::Generate(generation)) {
            Err(CallError::Refused(Refusal::Replaced)) => call.go_on().await?,
            submitted => return submitted,
        }
    }
}

async fn score(call: &mut Call, wire: &v1::ScoreRequest) -> Result<(Vec<u32>, Scored), CallError> {
    loop {
        match score_once(call, wire.clone()).await {
            Err(CallError::Refused(Refusal::Replaced) | CallError::Failed(Failure::Replaced)) => call.go_on().await?,
            scored => return scored,
        }
    }
}

async fn score_once(call: &mut Call, wire: v1::ScoreRequest) -> Result<(Vec<u32>, Scored), CallError> {
    let model = Arc::clone(&call.serving.model);
    let request = Score::parse(wire, &model)?;
    let most = model.limits.max_score_tokens;
    let tokens = call.within(request.input.tokens(&model, most)).await?;
    call.reads(tokens.len());
    let mut ticket = submit(call, request.priority, Work::Score(tokens.clone()))?;
    let work = async {
        loop {
            match ticket.next().await {
                Some(Event::Scored(scored)) => break Ok(scored),
                Some(Event::Failed(failure)) => break Err(CallError::Failed(failure)),
                Some(Event::Delta(_)) => {}
                Some(Event::Finished(_)) | None => break Err(CallError::Abandoned),
            }
        }
    };
    let scored = call.within(work).await?;
    Ok((tokens, scored))
}

async fn tokenize(call: &Call, wire: v1::TokenizeRequest) -> Result<v1::TokenizeResponse, CallError> {
    let model = &call.serving.model;
    let (tokens, pieces) = call.within(Tokenize::parse(wire, model)?.pieces(model)).await?;
    Ok(v1::TokenizeResponse { tokens, pieces })
}

async fn detokenize(call: &Call, wire: v1::DetokenizeRequest) -> Result<String, CallError> {
    let model = &call.serving.model;
    call.within(Detokenize::parse(wire, model)?.text(model)).await
}

fn submit(call: &mut Call, priority: Priority, work: Work) -> Result<Ticket, CallError> {
    let job = Job {
        id: call.id,
        work,
        client: call.client.clone(),
        priority,
        accepted: call.accepted,
        deadline: call.deadline.map(tokio::time::Instant::into_std),
    };
    let ticket = call.serving.admission.submit(job)?;
    call.waits(ticket.clock());
    Ok(ticket)
}

/// An answer on its way.
struct Answering {
    call: Call,
    ticket: Ticket,
    /// The request, as long as nothing of the answer was given: until then another model may give it.
    again: Option<v1::GenerateRequest>,
}

impl Answering {
    /// The next event of the answer, whichever model gives it.
    async fn event(&mut self) -> Result<Event, CallError> {
        loop {
            let ticket = &mut self.ticket;
            let event = self.call.within(async { ticket.next().await.ok_or(CallError::Abandoned) }).await?;
            match (event, &self.again) {
                (Event::Failed(Failure::Replaced), Some(request)) => {
                    self.call.go_on().await?;
                    self.ticket = start_generation(&mut self.call, request).await?;
                }
                (event, _) => {
                    self.again = None;
                    return Ok(event);
                }
            }
        }
    }
}

/// The messages of an answer. Dropping the stream drops the ticket, and with it the job.
fn answers(answering: Answering) -> Answers {
    Box::pin(unfold(Some(answering), async |state| {
        let mut answering = state?;
        let event = answering.event().await;
        let call = &mut answering.call;
        if let Ok(Event::Delta(delta)) = &event {
            call.progressed(delta);
        }
        match event.and_then(|event| answer(call, event)) {
            Ok(Answer::More(response)) => Some((Ok(response), Some(answering))),
            Ok(Answer::Last(response, outcome, usage, timings)) => {
                call.finished(outcome, usage, timings);
                Some((Ok(response), None))
            }
            Err(error) => Some((Err(call.failed(&error)), None)),
        }
    }))
}

/// A message of an answer.
enum Answer {
    More(v1::GenerateResponse),
    Last(v1::GenerateResponse, &'static str, Usage, Timings),
}

fn answer(call: &Call, event: Event) -> Result<Answer, CallError> {
    use v1::generate_response::Event as Wire;
    let response = |event| v1::GenerateResponse { event: Some(event) };
    match event {
        Event::Delta(delta) => Ok(Answer::More(response(Wire::Delta(delta_message(delta))))),
        Event::Finished(finished) => {
            let (usage, timings) = (finished.usage, finished.timings);
            let outcome = match finished.reason {
                FinishReason::EndOfText => "end_of_text",
                FinishReason::Stop(_) => "stop",
                FinishReason::MaxTokens => "max_tokens",
                FinishReason::Shutdown => "shutdown",
            };
            let message = finish_message(call, finished);
            Ok(Answer::Last(response(Wire::Finish(message)), outcome, usage, timings))
        }
        Event::Failed(failure) => Err(CallError::Failed(failure)),
        Event::Scored(_) => Err(CallError::Abandoned),
    }
}

fn delta_message(delta: Delta) -> v1::Delta {
    let pair = |(token, logprob)| v1::TokenLogprob { token, logprob };
    let entry = |entry: TokenLogprobs| v1::TokenLogprobs {
        chosen: Some(pair(entry.chosen)),
        top: entry.top.into_iter().map(pair).collect(),
    };
    v1::Delta { text: delta.text, tokens: delta.tokens, logprobs: delta.logprobs.into_iter().map(entry).collect() }
}

fn finish_message(call: &Call, finished: Finished) -> v1::Finish {
    let (reason, stop) = match finished.reason {
        FinishReason::EndOfText => (v1::FinishReason::EndOfText, String::new()),
        FinishReason::Stop(stop) => (v1::FinishReason::Stop, stop),
        FinishReason::MaxTokens => (v1::FinishReason::MaxTokens, String::new()),
        FinishReason::Shutdown => (v1::FinishReason::Shutdown, String::new()),
    };
    v1::Finish {
        reason: reason.into(),
        stop,
        usage: Some(usage(finished.usage)),
        timings: Some(timings(finished.timings)),
        seed: finished.seed,
        request_id: call.id.to_string(),
        model: call.serving.model.name.clone(),
        bundle: call.serving.model.bundle.clone(),
    }
}

fn score_response(call: &Call, tokens: Vec<u32>, scored: Scored) -> v1::ScoreResponse {
    v1::ScoreResponse {
        tokens,
        logprobs: scored.logprobs,
        usage: Some(usage(scored.usage)),
        timings: Some(timings(scored.timings)),
        request_id: call.id.to_string(),
        model: call.serving.model.name.clone(),
        bundle: call.serving.model.bundle.clone(),
    }
}

fn usage(usage: Usage) -> v1::Usage {
    v1::Usage { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens }
}

fn timings(timings: Timings) -> v1::Timings {
    // Only a duration of more than 10,000 years does not fit.
    let wire = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    v1::Timings {
        queue: wire(timings.queue),
        prefill: wire(timings.prefill),
        time_to_first_token: wire(timings.time_to_first_token),
        decode: wire(timings.decode),
        total: wire(timings.total),
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
