//! Calls about the models that a daemon keeps.

use std::time::Duration;

use recurve_proto::Bytes;
use recurve_proto::v1::activate_response::Event;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_proto::v1::upload_request::Part;
use recurve_proto::v1::{
    ActivateRequest, ActivateResponse, ListModelsRequest, Model, ModelActive, NodeState, PlanRequest, PlanResponse,
    PullRequest, RemoveModelRequest, RollbackRequest, UploadHeader, UploadRequest, WatchModelsRequest,
    WatchModelsResponse,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::args::On;
use crate::exit::Failure;
use crate::status::{Stage, Trouble};
use crate::target::{Address, Peer, Shown, Target};

/// How long a daemon may be silent where nobody says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a daemon may hash what it has of a model.
const HASHED: Duration = Duration::from_secs(15 * 60);
/// How long a daemon that fetches a model may make no progress: a lost link to its registry is tried again meanwhile.
pub(crate) const PULLED: Duration = Duration::from_secs(25 * 60);

/// A connection to a daemon, for its operator.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    peer: Peer,
    channel: Channel,
    models: ModelsClient<Channel>,
    patience: Duration,
}

/// A blob to send.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// The model that it belongs to.
    pub(crate) bundle: String,
    /// Its digest.
    pub(crate) digest: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Where to begin.
    pub(crate) offset: u64,
}

/// What a daemon says of itself, again at every change.
#[derive(Debug)]
pub(crate) struct Changes(Streaming<WatchModelsResponse>);

impl Operator {
    /// Connects to the daemon that `on` names.
    pub(crate) async fn connect(on: &On) -> Result<Self, Failure> {
        Ok(Self::at(&on.address()?, PATIENCE).await?)
    }

    /// Connects to the daemon at this address, which may be silent for so long.
    pub(crate) async fn at(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let (channel, peer) = super::channel(address, patience).await?;
        Ok(Self { peer, models: ModelsClient::new(channel.clone()), channel, patience })
    }

    /// The daemon's address.
    pub(crate) fn target(&self) -> &Target {
        &self.peer.target
    }

    /// Who is called.
    pub(super) fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// The connection, for other calls.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Every model of the daemon, and how it is; none where the daemon is too old to say it.
    pub(crate) async fn look(&mut self) -> Result<(Vec<Model>, Option<NodeState>), Trouble> {
        let answer = tokio::time::timeout(self.patience, self.models.list(ListModelsRequest {})).await;
        let listed = self.in_time(answer)?;
        Ok((listed.models, listed.state))
    }

    /// Every model of the daemon.
    pub(crate) async fn list(&mut self) -> Result<Vec<Model>, Trouble> {
        Ok(self.look().await?.0)
    }

    /// What [`look`](Self::look) gives, again at every change; none where the daemon is too old for that.
    pub(crate) async fn watch(&mut self) -> Result<Option<Changes>, Trouble> {
        match tokio::time::timeout(self.patience, self.models.watch(WatchModelsRequest {})).await {
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(None),
            answer => Ok(Some(Changes(self.in_time(answer)?))),
        }
    }

    /// The next change; none where the daemon ended the stream in order. However long nothing changes, a daemon that is gone
    /// is noticed, since its connection is.
    pub(crate) async fn next(&self, changes: &mut Changes) -> Result<Option<(Vec<Model>, Option<NodeState>)>, Trouble> {
        match changes.0.message().await {
            Ok(message) => Ok(message.map(|message| (message.models, message.state))),
            Err(status) => Err(self.trouble(&status, Stage::Answering)),
        }
    }

    /// What the daemon lacks of the model with this manifest; with the bytes of `recurve.json`, also whether it fits. The daemon
    /// hashes what it has of the model first, which may take long; its connection gives signs of life meanwhile.
    pub(crate) async fn plan(&mut self, manifest: Bytes, info: Bytes) -> Result<PlanResponse, Trouble> {
        let answer = self.models.plan(PlanRequest { manifest, info });
        match tokio::time::timeout(HASHED, answer).await {
            Ok(answer) => self.answered(answer),
            Err(_) => Err(Trouble::lost(&self.peer.target, format!("it gave no answer for {HASHED:?}"))),
        }
    }

    /// Sends a blob whose bytes from its offset on come through `pieces`.
    pub(crate) async fn upload(&mut self, blob: Blob, pieces: mpsc::Receiver<Bytes>) -> Result<(), Trouble> {
        let message = |part| UploadRequest { part: Some(part) };
        let Blob { bundle, digest, size, offset } = blob;
        let header = message(Part::Header(UploadHeader { bundle, digest, size, offset }));
        let data = ReceiverStream::new(pieces).map(move |piece| message(Part::Data(piece)));
        let response = self.models.upload(tokio_stream::once(header).chain(data)).await;
        self.answered(response).map(drop)
    }

    /// Has the daemon fetch a model from a registry; `each` is told how many bytes of how many are there. `silent`: how long
    /// it may say nothing of its progress.
    pub(crate) async fn pull(
        &mut self,
        request: PullRequest,
        silent: Duration,
        mut each: impl FnMut(u64, u64),
    ) -> Result<(), Trouble> {
        let response = self.models.pull(request).await;
        let mut stream = self.answered(response)?;
        loop {
            match tokio::time::timeout(silent, stream.message()).await {
                Ok(Ok(Some(progress))) => each(progress.received, progress.bytes),
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(status)) => return Err(self.trouble(&status, Stage::Answering)),
                Err(_) => {
                    return Err(Trouble::lost(&self.peer.target, format!("it fetched nothing for {silent:?}")));
                }
            }
        }
    }

    /// Has a model served; `each` is told how far it is.
    pub(crate) async fn activate(
        &mut self,
        bundle: String,
        each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Trouble> {
        let response = self.models.activate(ActivateRequest { bundle }).await;
        self.followed(response, each).await
    }

    /// Has the model before served.
    pub(crate) async fn rollback(
        &mut self,
        each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Trouble> {
        let response = self.models.rollback(RollbackRequest {}).await;
        self.followed(response, each).await
    }

    /// Removes a model; gives the bytes that are free again.
    pub(crate) async fn remove(&mut self, bundle: String) -> Result<u64, Trouble> {
        let response = self.models.remove(RemoveModelRequest { bundle }).await;
        Ok(self.answered(response)?.freed)
    }

    async fn followed(
        &mut self,
        response: Result<Response<Streaming<ActivateResponse>>, Status>,
        mut each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Trouble> {
        let mut stream = self.answered(response)?;
        loop {
            match stream.message().await {
                Ok(Some(ActivateResponse { event: Some(Event::Active(active)) })) => return Ok(active),
                Ok(Some(ActivateResponse { event: Some(event) })) => each(event)?,
                // A newer daemon may have events that this program does not know.
                Ok(Some(ActivateResponse { event: None })) => {}
                Ok(None) => {
                    let words = "it did not say what became of the model".to_owned();
                    let failure = Failure::Incomplete(format!("{}: {words}: see `agent-cli models`", self.peer.target));
                    return Err(Trouble { failure, ..Trouble::lost(&self.peer.target, words) });
                }
                Err(status) => return Err(self.trouble(&status, Stage::Answering)),
            }
        }
    }

    fn in_time<T>(
        &mut self,
        answer: Result<Result<Response<T>, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, Trouble> {
        match answer {
            Ok(response) => self.answered(response),
            Err(_) => {
                let words = format!("it gave no answer for {:?}", self.patience);
                Err(Trouble::lost(&self.peer.target, words))
            }
        }
    }

    fn answered<T>(&mut self, response: Result<Response<T>, Status>) -> Result<T, Trouble> {
        if response.is_ok() {
            self.peer.shown = Shown::Enough;
        }
        response.map(Response::into_inner).map_err(|status| self.trouble(&status, Stage::Asked))
    }

    fn trouble(&self, status: &Status, stage: Stage) -> Trouble {
        Trouble::calling(&self.peer, status, stage)
    }
}
