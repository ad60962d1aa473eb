//! A gRPC client of a daemon, and answers put together.

use std::time::Duration;

use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::generate_response::Event;
use recurve_proto::v1::inference_client::InferenceClient;
use recurve_proto::v1::{
    Chat, ChatMessage, Finish, FinishReason, GenerateRequest, Sampling, ScoreRequest, ScoreResponse, TokenIds,
    TokenLogprobs, score_request,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::daemon::Daemon;
use crate::process::LIMIT;

/// A client of the service.
pub type Client = InferenceClient<Channel>;

/// Everything that came of a stream.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Answer {
    /// The texts of all deltas.
    pub text: String,
    /// The tokens of all deltas.
    pub tokens: Vec<u32>,
    /// The log-probabilities of all deltas.
    pub logprobs: Vec<TokenLogprobs>,
    /// Deltas that came.
    pub deltas: usize,
    /// The last message.
    pub finish: Finish,
}

impl Answer {
    /// Why it ended.
    pub fn reason(&self) -> FinishReason {
        self.finish.reason()
    }

    /// The log-probability of each token.
    pub fn chosen(&self) -> Vec<f32> {
        self.logprobs.iter().map(|entry| entry.chosen.expect("the chosen token").logprob).collect()
    }
}

/// Waits for something that comes soon, if it comes at all.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("an answer, before the test gives up")
}

/// A connection of its own.
pub async fn channel(daemon: &Daemon) -> Channel {
    soon(endpoint(daemon).connect()).await.expect("a connection")
}

/// A client that takes in little before it is read.
pub async fn connect_narrow(daemon: &Daemon) -> Client {
    const LEAST: u32 = 65_535;
    let endpoint = endpoint(daemon).initial_stream_window_size(LEAST).initial_connection_window_size(LEAST);
    Client::new(soon(endpoint.connect()).await.expect("a connection"))
}

fn endpoint(daemon: &Daemon) -> Endpoint {
    let uri = match daemon.address.strip_prefix("unix:") {
        Some(path) => format!("unix://{path}"),
        None => format!("http://{}", daemon.address),
    };
    Endpoint::from_shared(uri).expect("an address")
}

/// A client with a connection of its own.
pub async fn connect(daemon: &Daemon) -> Client {
    Client::new(channel(daemon).await)
}

/// Continues tokens greedily, past every end of text.
pub fn greedy(ids: &[u32], max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::Tokens(TokenIds { ids: ids.to_vec() })),
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}

/// Continues tokens at random, past every end of text.
pub fn seeded(ids: &[u32], max_tokens: u32, seed: u64) -> GenerateRequest {
    GenerateRequest {
        sampling: Some(Sampling { temperature: Some(1.0), seed: Some(seed), ..Sampling::default() }),
        ..greedy(ids, max_tokens)
    }
}

/// Answers one message of a person.
pub fn chat(content: &str) -> GenerateRequest {
    let message = ChatMessage { role: "user".into(), content: content.into() };
    GenerateRequest { prompt: Some(Prompt::Chat(Chat { messages: vec![message] })), ..GenerateRequest::default() }
}

/// Begins an answer.
pub async fn begin(client: &Client, request: GenerateRequest) -> Result<Stream, Status> {
    let response = soon(client.clone().generate(request)).await?;
    Ok(Stream { messages: response.into_inner(), answer: Answer::default() })
}

/// A whole answer.
pub async fn generate(client: &Client, request: GenerateRequest) -> Result<Answer, Status> {
    begin(client, request).await?.rest().await
}

/// A request that has to end by this time.
pub fn by<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    // Only told to the daemon: tonic's own `set_timeout` would have this side give up first.
    let millis = deadline.as_millis().max(1);
    request.metadata_mut().insert("grpc-timeout", format!("{millis}m").parse().expect("a header"));
    request
}

/// The scores of tokens.
pub async fn score(client: &Client, ids: &[u32]) -> Result<ScoreResponse, Status> {
    let input = Some(score_request::Input::Tokens(TokenIds { ids: ids.to_vec() }));
    let response = soon(client.clone().score(ScoreRequest { input, ..ScoreRequest::default() })).await?;
    Ok(response.into_inner())
}

/// An answer that is on its way. Dropping it cancels the request.
#[derive(Debug)]
pub struct Stream {
    messages: Streaming<recurve_proto::v1::GenerateResponse>,
    /// What came so far.
    pub answer: Answer,
}

impl Stream {
    /// Takes over an answer that has begun.
    pub fn new(messages: Streaming<recurve_proto::v1::GenerateResponse>) -> Self {
        Self { messages, answer: Answer::default() }
    }

    /// Takes the next message; whether there may be more.
    pub async fn next(&mut self) -> Result<bool, Status> {
        match soon(self.messages.message()).await?.and_then(|message| message.event) {
            Some(Event::Delta(delta)) => {
                self.answer.text.push_str(&delta.text);
                self.answer.tokens.extend(delta.tokens);
                self.answer.logprobs.extend(delta.logprobs);
                self.answer.deltas += 1;
                Ok(true)
            }
            Some(Event::Finish(finish)) => {
                self.answer.finish = finish;
                let after = soon(self.messages.message()).await?;
                assert!(after.is_none(), "the finish is the last message");
                Ok(false)
            }
            None => panic!("the stream ended without a finish"),
        }
    }

    /// Reads until this many tokens have come.
    pub async fn until(&mut self, tokens: usize) -> Result<(), Status> {
        while self.answer.tokens.len() < tokens {
            assert!(self.next().await?, "{tokens} tokens come");
        }
        Ok(())
    }

    /// Reads to the end.
    pub async fn rest(mut self) -> Result<Answer, Status> {
        while self.next().await? {}
        Ok(self.answer)
    }
}

/// A status's code, stable reason and wrong fields.
pub fn told(status: &Status) -> (Code, String, Vec<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let bad = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    (status.code(), reason, bad.into_iter().map(|violation| violation.field).collect())
}
