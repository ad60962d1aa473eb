//! A daemon without a model: it answers what the prompt's text asks it to do, and remembers the requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recurve_proto::reason;
use recurve_proto::v1::inference_server::{Inference, InferenceServer};
use recurve_proto::v1::{
    Delta, DetokenizeRequest, DetokenizeResponse, Finish, FinishReason, GenerateRequest, GenerateResponse,
    ScoreRequest, ScoreResponse, Timings, TokenLogprob, TokenLogprobs, TokenizeRequest, TokenizeResponse, Usage,
    generate_request::Prompt, generate_response::Event, score_request, tokenize_request,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A daemon of the test's own; it ends with the test.
pub(crate) struct Fake {
    pub(crate) on: String,
    requests: Arc<Mutex<Vec<GenerateRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    /// On a free port of this machine.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let service = Service::default();
        let requests = Arc::clone(&service.requests);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(InferenceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { on: address.to_string(), requests, _runtime: runtime }
    }

    /// On a Unix socket.
    pub(crate) fn start_at(path: &Path) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let service = Service::default();
        let requests = Arc::clone(&service.requests);
        let listener = runtime.block_on(async { UnixListener::bind(path) }).unwrap();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(InferenceServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self { on: format!("unix:{}", path.display()), requests, _runtime: runtime }
    }

    /// The requests to generate so far.
    pub(crate) fn requests(&self) -> Vec<GenerateRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[derive(Default)]
struct Service {
    requests: Arc<Mutex<Vec<GenerateRequest>>>,
}

type Answer = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

fn delta(text: &str, tokens: &[u32]) -> Result<GenerateResponse, Status> {
    let logprobs = tokens
        .iter()
        .map(|&token| TokenLogprobs {
            chosen: Some(TokenLogprob { token, logprob: -0.5 }),
            top: vec![TokenLogprob { token, logprob: -0.5 }],
        })
        .collect();
    Ok(GenerateResponse {
        event: Some(Event::Delta(Delta { text: text.to_owned(), tokens: tokens.to_vec(), logprobs })),
    })
}

fn finish(reason: FinishReason, tokens: u64) -> Result<GenerateResponse, Status> {
    let time = |milliseconds: i32| Some(prost_types::Duration { seconds: 0, nanos: milliseconds * 1_000_000 });
    Ok(GenerateResponse {
        event: Some(Event::Finish(Finish {
            reason: reason.into(),
            usage: Some(Usage { prompt_tokens: 7, completion_tokens: tokens }),
            timings: Some(Timings {
                queue: time(1),
                prefill: time(2),
                time_to_first_token: time(4),
                decode: time(8),
                total: time(12),
            }),
            seed: 42,
            request_id: "0190".to_owned(),
            model: "fake".to_owned(),
            bundle: "sha256:00".to_owned(),
            ..Default::default()
        })),
    })
}

/// The text that tells the fake what to do.
fn asked(request: &GenerateRequest) -> String {
    match &request.prompt {
        Some(Prompt::Text(text)) => text.clone(),
        Some(Prompt::Chat(chat)) => chat.messages.last().unwrap().content.clone(),
        Some(Prompt::Tokens(_)) | None => "tokens".to_owned(),
    }
}

fn refused(what: &str) -> Status {
    let info = |reason: &str| ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
    match what {
        "violations" => {
            let mut details = info(reason::INVALID_REQUEST);
            details.add_bad_request_violation("sampling.top_p", "7 is not above 0 and up to 1");
            details.add_bad_request_violation("stop[0]", "is empty");
            Status::with_error_details(
                Code::InvalidArgument,
                "sampling.top_p: 7 is not above 0 and up to 1; stop[0]: is empty",
                details,
            )
        }
        "busy" => {
            let mut details = info(reason::QUEUE_FULL);
            details.set_retry_info(Some(Duration::from_millis(1500)));
            Status::with_error_details(Code::ResourceExhausted, "the queue is full", details)
        }
        "template" => Status::with_error_details(
            Code::FailedPrecondition,
            "the bundle has no chat template",
            info(reason::NO_CHAT_TEMPLATE),
        ),
        "internal" => Status::internal("the engine failed at a step"),
        "escape" => Status::internal("bad \x1b[2J"),
        _ => Status::unavailable("shutting down"),
    }
}

fn answer(request: &GenerateRequest) -> Result<Answer, Status> {
    let text = asked(request);
    let items = match text.as_str() {
        "dead" => vec![delta("half of", &[5])],
        "broken" => vec![delta("half of", &[5]), Err(Status::internal("the engine failed at a step"))],
        "shutdown" => vec![delta("half of", &[5]), finish(FinishReason::Shutdown, 1)],
        "silent" => return Ok(Box::pin(tokio_stream::pending())),
        "endless" => {
            let words = tokio_stream::iter(std::iter::repeat_with(|| delta("word ", &[5])));
            return Ok(Box::pin(words.throttle(Duration::from_millis(5))));
        }
        "tokens" => {
            let count = request.max_tokens.unwrap_or(2);
            let mut items: Vec<_> = (0..count).map(|token| delta("", &[token])).collect();
            items.push(finish(FinishReason::MaxTokens, count.into()));
            items
        }
        "violations" | "busy" | "template" | "internal" | "escape" | "unavailable" => return Err(refused(&text)),
        said => vec![
            delta(&format!("You said {said}"), &[5, 6]),
            delta("", &[7]),
            delta(".\n", &[8]),
            finish(FinishReason::EndOfText, 4),
        ],
    };
    Ok(Box::pin(tokio_stream::iter(items)))
}

#[tonic::async_trait]
impl Inference for Service {
    type GenerateStream = Answer;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Answer>, Status> {
        let request = request.into_inner();
        self.requests.lock().unwrap().push(request.clone());
        answer(&request).map(Response::new)
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let tokens = match request.into_inner().input {
            Some(score_request::Input::Tokens(tokens)) => tokens.ids,
            Some(score_request::Input::Text(text)) => cut(&text).map(|(id, _)| id).collect(),
            _ => return Err(Status::invalid_argument("no input")),
        };
        let logprobs = vec![-0.25; tokens.len().saturating_sub(1)];
        Ok(Response::new(ScoreResponse { tokens, logprobs, ..Default::default() }))
    }

    async fn tokenize(&self, request: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        let request = request.into_inner();
        let Some(tokenize_request::Input::Text(text)) = request.input else {
            return Err(Status::invalid_argument("no input"));
        };
        let skip = usize::from(request.no_special_tokens);
        let (tokens, pieces) = cut(&text).skip(skip).unzip();
        Ok(Response::new(TokenizeResponse { tokens, pieces }))
    }

    async fn detokenize(&self, request: Request<DetokenizeRequest>) -> Result<Response<DetokenizeResponse>, Status> {
        let request = request.into_inner();
        let text = request
            .tokens
            .into_iter()
            .filter(|id| *id != 2 || request.keep_special_tokens)
            .map(|id| if id == 2 { "<bos>".to_owned() } else { format!("w{id}") })
            .collect::<Vec<_>>()
            .join(" ");
        Ok(Response::new(DetokenizeResponse { text }))
    }
}

/// A beginning of text, then each word with its length as its id.
fn cut(text: &str) -> impl Iterator<Item = (u32, String)> {
    let words = text.split_whitespace().map(|word| (word.len() as u32, word.to_owned()));
    std::iter::once((2, "<bos>".to_owned())).chain(words)
}
