//! One connection to one daemon, and the calls over it.

pub(crate) mod collector;
mod first;
pub(crate) mod models;
pub(crate) mod node;
pub(crate) mod operate;
pub(crate) mod trust;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use recurve_proto::v1::generate_response::Event;
use recurve_proto::v1::inference_client::InferenceClient;
use recurve_proto::v1::{
    Delta, DetokenizeRequest, Finish, GenerateRequest, ScoreRequest, ScoreResponse, TokenizeRequest, TokenizeResponse,
};
use tokio::net::{TcpStream, UnixStream};
use tonic::codegen::StdError;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};
use tower::{Service, ServiceExt as _, service_fn};

use crate::args::On;
use crate::exit::Failure;
use crate::status::{self, Stage, Trouble};
use crate::target::{Address, Certificates, Heard, Peer, Shown, Target};
use first::Listening;

/// How long a daemon may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked for a sign of life while a call is under way, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest answer: the pieces of a text of 4 MiB, each a token of its own, stay below it.
const LARGEST_ANSWER: usize = 64 << 20;

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    peer: Peer,
    inference: InferenceClient<Channel>,
}

impl Client {
    /// Connects to the daemon that `on` names.
    pub(crate) async fn connect(on: &On) -> Result<Self, Failure> {
        let address = on.address()?;
        let (channel, peer) = channel(&address, KEEP_ALIVE).await?;
        let inference = InferenceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        Ok(Self { peer, inference })
    }

    /// The daemon's address.
    pub(crate) fn target(&self) -> &Target {
        &self.peer.target
    }

    /// Generates, and gives each piece of the answer to `each` as it arrives. `limit` bounds the whole call.
    pub(crate) async fn generate(
        &mut self,
        request: GenerateRequest,
        limit: Option<Duration>,
        each: impl FnMut(Delta) -> Result<(), Failure>,
    ) -> Result<Finish, Failure> {
        let Some(limit) = limit else {
            return self.stream(Request::new(request), each).await;
        };
        let mut request = Request::new(request);
        request.set_timeout(limit);
        let target = self.peer.target.clone();
        match tokio::time::timeout(limit, self.stream(request, each)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Deadline(format!(
                "{target} gave no complete answer within {limit:?}: allow more with --timeout"
            ))),
        }
    }

    async fn stream(
        &mut self,
        request: Request<GenerateRequest>,
        mut each: impl FnMut(Delta) -> Result<(), Failure>,
    ) -> Result<Finish, Failure> {
        let response = self.inference.generate(request).await;
        let mut stream = self.answered(response)?;
        let mut stage = Stage::Asked;
        let finish = loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.unfinished()),
                Err(status) => return Err(status::calling(&self.peer, &status, stage)),
            };
            stage = Stage::Answering;
            match message.event {
                Some(Event::Delta(delta)) => each(delta)?,
                Some(Event::Finish(finish)) => break finish,
                // A newer daemon may have events that this program does not know.
                None => {}
            }
        };
        // The answer is complete, however the stream ends; reading on until then spares the daemon a reset.
        let _ = stream.message().await;
        Ok(finish)
    }

    fn unfinished(&self) -> Failure {
        Failure::Incomplete(format!(
            "the answer of {} ended without its last message: what was printed is incomplete; ask again",
            self.peer.target
        ))
    }

    /// The log-probability of each token after the ones before it.
    pub(crate) async fn score(&mut self, request: ScoreRequest) -> Result<ScoreResponse, Failure> {
        let response = self.inference.score(request).await;
        self.answered(response)
    }

    /// Text to token ids.
    pub(crate) async fn tokenize(&mut self, request: TokenizeRequest) -> Result<TokenizeResponse, Failure> {
        let response = self.inference.tokenize(request).await;
        self.answered(response)
    }

    /// Token ids to text.
    pub(crate) async fn detokenize(&mut self, request: DetokenizeRequest) -> Result<String, Failure> {
        let response = self.inference.detokenize(request).await;
        Ok(self.answered(response)?.text)
    }

    fn answered<T>(&mut self, response: Result<Response<T>, Status>) -> Result<T, Failure> {
        if response.is_ok() {
            self.peer.shown = Shown::Enough;
        }
        response.map(Response::into_inner).map_err(|status| status::calling(&self.peer, &status, Stage::Asked))
    }
}

/// A connection to the daemon at this address. `silent`: how long it may give no sign of life while a call is under way
/// before it is asked for one, and then until that comes.
async fn channel(address: &Address, silent: Duration) -> Result<(Channel, Peer), Trouble> {
    let (Address { target, certificates }, peer) = (address, address.peer());
    let accept = CONNECT.min(silent);
    let mut endpoint = Endpoint::from_shared(target.uri(certificates.is_some()))
        .map_err(|error| Failure::Usage(format!("{target} is not an address: {error}")))?
        .connect_timeout(accept)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(silent)
        .keep_alive_timeout(silent);
    if let Some(Certificates { ca, own }) = certificates {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some((certificate, key)) = own {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| Failure::Usage(status::unusable(&error)))?;
    }
    let connecting = async {
        match target {
            Target::Tcp { .. } => endpoint.connect_with_connector(connector(accept, &peer.heard)).await,
            Target::Unix(path) => {
                let path = path.clone();
                endpoint.connect_with_connector(service_fn(move |_: Uri| open(path.clone()))).await
            }
        }
    };
    match tokio::time::timeout(accept, connecting).await {
        Ok(Ok(channel)) => Ok((channel, peer)),
        Ok(Err(error)) => Err(Trouble::connecting(&peer, &error)),
        // A process that stands still: its system takes the connection, and nobody answers.
        Err(_) => Err(Trouble::lost(target, "it does not answer".to_owned())),
    }
}

/// Makes connections over TCP, to whichever address of a name answers, and notes what the other end says first.
fn connector(
    accept: Duration,
    heard: &Heard,
) -> impl Service<Uri, Response = TokioIo<Listening<TcpStream>>, Error = StdError, Future: Send> + Send + 'static {
    let mut tcp = HttpConnector::new_with_resolver(service_fn(addresses));
    // TLS is the endpoint's.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(accept));
    let heard = heard.clone();
    service_fn(move |uri: Uri| {
        let (connecting, heard) = (tcp.clone().oneshot(uri), heard.clone());
        async move {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(Listening::new(stream, heard)))
        }
    })
}

/// The addresses of a name. Those of `localhost` are known, and many machines' tables of hosts have only one of them.
async fn addresses(name: Name) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    if name.as_str().eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()].into_iter());
    }
    Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>().into_iter())
}

/// Connects to the Unix socket at whatever path.
async fn open(socket: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(socket).await.map(TokioIo::new)
}
