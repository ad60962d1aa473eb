//! Calls about the models that a daemon keeps.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use recurve_proto::Bytes;
use recurve_proto::v1::activate_response::Event;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_proto::v1::upload_request::Part;
use recurve_proto::v1::{
    ActivateRequest, ActivateResponse, ListModelsRequest, Model, ModelActive, PlanRequest, PlanResponse, PullRequest,
    RemoveModelRequest, RollbackRequest, UploadHeader, UploadRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::args::On;
use crate::exit::Failure;
use crate::status::{self, Stage};
use crate::target::Target;

/// Bytes in a message of an upload.
const PIECE: usize = 256 << 10;
/// Messages that were read and not sent.
const UNSENT: usize = 8;

/// A connection to a daemon, for its operator.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    target: Target,
    channel: Channel,
    models: ModelsClient<Channel>,
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
    /// Where it lies.
    pub(crate) path: PathBuf,
}

impl Operator {
    /// Connects to the daemon that `on` names.
    pub(crate) async fn connect(on: &On) -> Result<Self, Failure> {
        let (target, channel) = super::channel(on).await?;
        Ok(Self { target, models: ModelsClient::new(channel.clone()), channel })
    }

    /// The daemon's address.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The connection, for other calls.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Every model of the daemon.
    pub(crate) async fn list(&mut self) -> Result<Vec<Model>, Failure> {
        let response = self.models.list(ListModelsRequest {}).await;
        Ok(self.answered(response)?.models)
    }

    /// What the daemon lacks of the model with this manifest.
    pub(crate) async fn plan(&mut self, manifest: Vec<u8>) -> Result<PlanResponse, Failure> {
        let response = self.models.plan(PlanRequest { manifest: manifest.into(), info: Bytes::new() }).await;
        self.answered(response)
    }

    /// Sends a blob; `sent` is given the bytes as they leave.
    pub(crate) async fn upload(&mut self, blob: Blob, sent: impl Fn(u64) + Send + 'static) -> Result<(), Failure> {
        let (messages, stream) = mpsc::channel(UNSENT);
        let reading = tokio::task::spawn_blocking(move || read(&blob, &messages, &sent));
        let response = self.models.upload(ReceiverStream::new(stream)).await;
        let read = reading.await.unwrap_or_else(|_| Err(Failure::Failed("reading the bundle panicked".to_owned())));
        // A file that cannot be read is the reason for what the daemon then says.
        read?;
        self.answered(response).map(drop)
    }

    /// Has the daemon fetch a model from a registry; `each` is told how many bytes of how many are there.
    pub(crate) async fn pull(
        &mut self,
        request: PullRequest,
        mut each: impl FnMut(u64, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.models.pull(request).await;
        let mut stream = self.answered(response)?;
        while let Some(progress) =
            stream.message().await.map_err(|status| status::calling(&self.target, &status, Stage::Answering))?
        {
            each(progress.received, progress.bytes)?;
        }
        Ok(())
    }

    /// Has a model served; `each` is told how far it is.
    pub(crate) async fn activate(
        &mut self,
        bundle: String,
        each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Failure> {
        let response = self.models.activate(ActivateRequest { bundle }).await;
        self.followed(response, each).await
    }

    /// Has the model before served.
    pub(crate) async fn rollback(
        &mut self,
        each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Failure> {
        let response = self.models.rollback(RollbackRequest {}).await;
        self.followed(response, each).await
    }

    /// Removes a model; gives the bytes that are free again.
    pub(crate) async fn remove(&mut self, bundle: String) -> Result<u64, Failure> {
        let response = self.models.remove(RemoveModelRequest { bundle }).await;
        Ok(self.answered(response)?.freed)
    }

    async fn followed(
        &self,
        response: Result<Response<Streaming<ActivateResponse>>, Status>,
        mut each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<ModelActive, Failure> {
        let mut stream = self.answered(response)?;
        loop {
            match stream.message().await {
                Ok(Some(ActivateResponse { event: Some(Event::Active(active)) })) => return Ok(active),
                Ok(Some(ActivateResponse { event: Some(event) })) => each(event)?,
                // A newer daemon may have events that this program does not know.
                Ok(Some(ActivateResponse { event: None })) => {}
                Ok(None) => {
                    return Err(Failure::Incomplete(format!(
                        "{} did not say what became of the model: see `agent-cli models`",
                        self.target
                    )));
                }
                Err(status) => return Err(status::calling(&self.target, &status, Stage::Answering)),
            }
        }
    }

    fn answered<T>(&self, response: Result<Response<T>, Status>) -> Result<T, Failure> {
        response.map(Response::into_inner).map_err(|status| status::calling(&self.target, &status, Stage::Asked))
    }
}

/// Reads a blob into messages until it is all read, or nobody takes them.
fn read(blob: &Blob, messages: &mpsc::Sender<UploadRequest>, sent: &impl Fn(u64)) -> Result<(), Failure> {
    let failed = |error| Failure::Failed(format!("cannot read {}: {error}", blob.path.display()));
    let Blob { bundle, digest, size, offset, path } = blob.clone();
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let part = |part| UploadRequest { part: Some(part) };
    if messages.blocking_send(part(Part::Header(UploadHeader { bundle, digest, size, offset }))).is_err() {
        return Ok(());
    }
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let count = std::io::Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece).map_err(failed)?;
        if count == 0 || messages.blocking_send(part(Part::Data(Bytes::from(piece)))).is_err() {
            return Ok(());
        }
        sent(count as u64);
    }
}
