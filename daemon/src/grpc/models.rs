//! `recurve.v1.Models`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, StreamExt as _, unfold};
use recurve_bundle::Digest;
use recurve_proto::v1::models_server::{Models as Api, ModelsServer};
use recurve_proto::{Bytes, v1};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use uuid::Uuid;

use super::access::{self, Right};
use super::peer::{self, Peer};
use super::status::CallError;
use crate::deployment::{DeployError, Models, Order, Progress};
use crate::node::Node;
use crate::store::{Listed, Stage, Store, StoreError, Taken};

/// Messages of an upload that wait for the disk.
const UNWRITTEN: usize = 8;
/// Messages of an activation: one of each kind, and its end.
const MESSAGES: usize = 8;

/// The service for the routes; without models where the node serves the bundle of its configuration.
pub(super) fn service(node: &Arc<Node>, models: Option<Models>) -> ModelsServer<Service> {
    ModelsServer::new(Service { node: Arc::clone(node), models })
}

/// Answers operators.
#[derive(Debug)]
pub(super) struct Service {
    node: Arc<Node>,
    models: Option<Models>,
}

/// A call that is allowed. The node waits for it when it stops.
#[derive(Debug)]
struct Call {
    method: &'static str,
    id: Uuid,
    who: String,
    /// Whether it changes what the node keeps or serves.
    changes: bool,
    models: Models,
    _open: TaskTrackerToken,
}

impl Service {
    fn begin<T>(&self, method: &'static str, request: &Request<T>) -> Result<Call, Status> {
        let id = Uuid::now_v7();
        let extensions = request.extensions();
        let models = access::check(extensions.get::<Peer>(), Right::Operate)
            .and_then(|()| self.models.clone().ok_or(CallError::NotManaged));
        match models {
            Ok(models) => {
                let who = peer::client(extensions).0.to_string();
                let changes = matches!(method, "Activate" | "Rollback" | "Remove");
                Ok(Call { method, id, who, changes, models, _open: self.node.call() })
            }
            Err(error) => Err(error.status(id)),
        }
    }
}

impl Call {
    /// Ends the call, and says so in the log.
    fn ended<T>(&self, result: Result<T, CallError>) -> Result<Response<T>, Status> {
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.status(self.id).message().to_owned(),
        };
        match (self.changes, &result) {
            // A model has many blobs.
            (false, Ok(_)) => debug!(method = self.method, request = %self.id, client = self.who, outcome, "operation"),
            _ => info!(method = self.method, request = %self.id, client = self.who, outcome, "operation"),
        }
        result.map(Response::new).map_err(|error| error.status(self.id))
    }

    /// Does what waits for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, CallError> {
        let (store, who) = (Arc::clone(&self.models.store), self.who.clone());
        match spawn_blocking(move || work(&store, &who)).await {
            Ok(result) => result.map_err(CallError::Store),
            Err(_) => Err(CallError::Abandoned),
        }
    }

    async fn order(self, bundle: Option<Digest>) -> Result<Response<Events>, Status> {
        let (tell, events) = mpsc::channel(MESSAGES);
        let order = Order { bundle, who: self.who.clone(), tell };
        if self.models.orders.send(order).await.is_err() {
            return Err(CallError::Stopping.status(self.id));
        }
        info!(method = self.method, request = %self.id, client = self.who, outcome = "begun", "operation");
        Ok(Response::new(Box::pin(unfold((self, events), async |(call, mut events)| {
            let event = events.recv().await?;
            let message = event.map(event_message).map_err(|error| CallError::Deploy(error).status(call.id));
            Some((message, (call, events)))
        }))))
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::ActivateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Api for Service {
    type ActivateStream = Events;
    type RollbackStream = Events;
    type PullStream = Pin<Box<dyn Stream<Item = Result<v1::PullResponse, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchModelsResponse, Status>> + Send>>;

    async fn pull(&self, _: Request<v1::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("Pull"))
    }

    async fn watch(&self, _: Request<v1::WatchModelsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("Watch"))
    }

    async fn list(&self, request: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let call = self.begin("List", &request)?;
        let models = call.on_disk(|store, _| {
            let named = |listed: Listed| {
                model(&listed, store.bundle(listed.bundle).ok().map(|bundle| bundle.name().to_owned()))
            };
            Ok(store.models().into_iter().map(named).collect())
        });
        let models = models.await;
        call.ended(models.map(|models| v1::ListModelsResponse { models, state: None }))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let call = self.begin("Plan", &request)?;
        let manifest = request.into_inner().manifest;
        let plan = call.on_disk(move |store, _| store.plan(&manifest)).await;
        call.ended(plan.map(|plan| {
            v1::PlanResponse {
                bundle: plan.bundle.to_string(),
                missing: plan
                    .missing
                    .iter()
                    .map(|blob| v1::MissingBlob {
                        digest: blob.digest.to_string(),
                        size: blob.size,
                        received: blob.received,
                    })
                    .collect(),
                bytes: plan.bytes,
                free: plan.free,
                ..v1::PlanResponse::default()
            }
        }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        let call = self.begin("Upload", &request)?;
        let taken = upload(&call, request.into_inner()).await;
        call.ended(taken.map(|taken| v1::UploadResponse { digest: taken.digest.to_string(), size: taken.size }))
    }

    async fn activate(&self, request: Request<v1::ActivateRequest>) -> Result<Response<Events>, Status> {
        let call = self.begin("Activate", &request)?;
        match digest("bundle", &request.get_ref().bundle) {
            Ok(bundle) => call.order(Some(bundle)).await,
            Err(error) => Err(error.status(call.id)),
        }
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<Events>, Status> {
        self.begin("Rollback", &request)?.order(None).await
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveModelRequest>,
    ) -> Result<Response<v1::RemoveModelResponse>, Status> {
        let call = self.begin("Remove", &request)?;
        let freed = match digest("bundle", &request.get_ref().bundle) {
            Ok(bundle) => call.on_disk(move |store, who| store.remove(bundle, who)).await,
            Err(error) => Err(error),
        };
        call.ended(freed.map(|freed| v1::RemoveModelResponse { freed }))
    }
}

/// Takes a blob: the network fills a short queue, the disk empties it.
async fn upload(call: &Call, mut messages: Streaming<v1::UploadRequest>) -> Result<Taken, CallError> {
    use v1::upload_request::Part;
    let first = messages.message().await.map_err(|_| CallError::NoHeader)?;
    let Some(Part::Header(header)) = first.and_then(|message| message.part) else { return Err(CallError::NoHeader) };
    let (bundle, blob) = (digest("header.bundle", &header.bundle)?, digest("header.digest", &header.digest)?);
    let mut incoming = call.on_disk(move |store, _| store.receive(bundle, blob, header.size, header.offset)).await?;
    let (bytes, mut unwritten) = mpsc::channel::<Bytes>(UNWRITTEN);
    let writing = call.on_disk(move |_, who| {
        while let Some(bytes) = unwritten.blocking_recv() {
            incoming.write(&bytes)?;
        }
        incoming.finish(who)
    });
    let reading = async move {
        // However the stream ends, the store knows whether the blob is complete.
        while let Some(Ok(message)) = messages.next().await {
            let Some(Part::Data(data)) = message.part else { break };
            if bytes.send(data).await.is_err() {
                break;
            }
        }
    };
    let (taken, ()) = tokio::join!(writing, reading);
    taken
}

fn digest(field: &'static str, text: &str) -> Result<Digest, CallError> {
    text.parse::<Digest>().map_err(|error| CallError::Field { field, words: error.to_string() })
}

fn model(listed: &Listed, name: Option<String>) -> v1::Model {
    let stage = match listed.kept.stage {
        Stage::Received => v1::ModelStage::Received,
        Stage::Verified => v1::ModelStage::Verified,
        Stage::Prepared => v1::ModelStage::Prepared,
        Stage::Confirmed => v1::ModelStage::Confirmed,
    };
    v1::Model {
        bundle: listed.bundle.to_string(),
        name: name.unwrap_or_default(),
        stage: stage.into(),
        bytes: listed.kept.bytes,
        active: listed.active,
        previous: listed.previous,
        failure: listed.kept.failure.clone().unwrap_or_default(),
        kernels: String::new(),
        tokens_per_second: 0.0,
    }
}

fn event_message(progress: Progress) -> v1::ActivateResponse {
    use v1::activate_response::Event;
    let event = match progress {
        Progress::Verified { bytes } => Event::Verified(v1::ModelVerified { bytes }),
        Progress::Prepared { examined, kernels } => Event::Prepared(v1::ModelPrepared {
            apart: examined.apart,
            allowed: examined.allowed,
            tokens_per_second: examined.tokens_per_second,
            kernels: kernels.to_owned(),
        }),
        Progress::Active { bundle, name } => Event::Active(v1::ModelActive { bundle: bundle.to_string(), name }),
    };
    v1::ActivateResponse { event: Some(event) }
}

/// Code and stable reason of what went wrong with a model.
pub(super) fn describe(error: &StoreError) -> (tonic::Code, &'static str) {
    use recurve_proto::reason;
    use tonic::Code;
    match error {
        StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::Damaged { .. } => {
            (Code::Internal, reason::STORE_FAILED)
        }
        StoreError::Bundle(_) => (Code::FailedPrecondition, reason::MODEL_UNUSABLE),
        StoreError::Unknown { .. } => (Code::NotFound, reason::NO_SUCH_MODEL),
        StoreError::NoPrevious => (Code::FailedPrecondition, reason::NO_SUCH_MODEL),
        StoreError::NotNamed { .. } | StoreError::TooLong { .. } | StoreError::WrongBytes { .. } => {
            (Code::InvalidArgument, reason::WRONG_BLOB)
        }
        StoreError::Offset { .. } => (Code::OutOfRange, reason::WRONG_OFFSET),
        StoreError::Busy { .. } | StoreError::Incomplete { .. } => (Code::Aborted, reason::UPLOAD_INTERRUPTED),
        StoreError::NoRoom { .. } => (Code::FailedPrecondition, reason::NO_ROOM),
        StoreError::NotPrepared { .. } | StoreError::InUse { .. } => (Code::FailedPrecondition, reason::MODEL_IN_USE),
    }
}

/// The same of an order.
pub(super) fn describe_order(error: &DeployError) -> (tonic::Code, &'static str) {
    use recurve_proto::reason;
    use tonic::Code;
    match error {
        DeployError::Store(error) => describe(error),
        DeployError::Trust(error) => super::trust::describe(error),
        DeployError::Golden(_) => (Code::FailedPrecondition, reason::GOLDEN_TEST_FAILED),
        DeployError::Unusable(_) => (Code::FailedPrecondition, reason::MODEL_UNUSABLE),
    }
}
