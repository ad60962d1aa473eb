//! `recurve.v1.Models`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, StreamExt as _, unfold};
use recurve_bundle::Digest;
use recurve_proto::v1::models_server::{Models as Api, ModelsServer};
use recurve_proto::{Bytes, v1};
use recurve_registry::{Credentials, RegistryError, Repository};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use uuid::Uuid;

use super::access::{self, Right};
use super::call;
use super::peer::{self, Peer};
use super::state;
use super::status::CallError;
use crate::deployment::{DeployError, Models, Order, Progress, Room};
use crate::node::{Node, Phase};
use crate::store::{Plan, PullError, PullOrder, Pulling, Store, StoreError, Taken};

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
        let open = self.node.call();
        let models = access::check(extensions.get::<Peer>(), Right::Operate)
            .and_then(|()| call::unless_stopping(&self.node))
            .and_then(|()| self.models.clone().ok_or(CallError::NotManaged));
        match models {
            Ok(models) => {
                let who = peer::client(extensions).0.to_string();
                let changes = matches!(method, "Activate" | "Rollback" | "Remove");
                Ok(Call { method, id, who, changes, models, _open: open })
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

    async fn pull(&self, request: Request<v1::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let call = self.begin("Pull", &request)?;
        let begun = pull_order(request.into_inner(), &call.who)
            .and_then(|order| call.models.pulls.begin(order).map_err(|error| CallError::Pull(Arc::new(error))));
        let pulling = begun.map_err(|error| error.status(call.id))?;
        info!(method = call.method, request = %call.id, client = call.who, outcome = "begun", "operation");
        Ok(Response::new(Box::pin(unfold(Some((call, pulling, Arc::clone(&self.node))), follow))))
    }

    async fn watch(&self, request: Request<v1::WatchModelsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = self.begin("Watch", &request)?;
        let states = state::watch(Arc::clone(&self.node), Arc::clone(&call.models.store));
        // The node does not wait for who only looks.
        call.ended(Ok(Box::pin(states) as Self::WatchStream))
    }

    async fn list(&self, request: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let call = self.begin("List", &request)?;
        let models = call.on_disk(|store, _| Ok(state::models(store))).await;
        let state = Some(state::of(&self.node));
        call.ended(models.map(|models| v1::ListModelsResponse { models, state }))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let call = self.begin("Plan", &request)?;
        let request = request.into_inner();
        let served = match self.node.phase() {
            Phase::Serving(serving) => Some(serving.model.bundle.clone()),
            _ => None,
        };
        let settings = Arc::clone(&call.models.settings);
        let plan = call.on_disk(move |store, _| {
            let plan = store.plan(&request.manifest)?;
            let room = Room::of(store, &settings, served, &request.manifest, &request.info)?;
            Ok((plan, room))
        });
        let plan = plan.await;
        call.ended(plan.map(|(plan, room)| plan_response(&plan, room)))
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

/// A pull's next message.
type Follower = (Call, watch::Receiver<Pulling>, Arc<Node>);

async fn follow(follower: Option<Follower>) -> Option<(Result<v1::PullResponse, Status>, Option<Follower>)> {
    let (call, mut pulling, node) = follower?;
    let changed = tokio::select! {
        changed = pulling.changed() => changed.map_err(|_| CallError::PullLost),
        () = node.stopping() => Err(CallError::Stopping),
    };
    let now = pulling.borrow_and_update().clone();
    let told = match (changed, now.ended) {
        (_, Some(Err(error))) => Err(CallError::Pull(error)),
        (Err(error), None) => Err(error),
        (_, ended) => Ok(ended.is_some()),
    };
    match told {
        Ok(ended) => {
            let message = v1::PullResponse { received: now.received, bytes: now.bytes };
            Some((Ok(message), (!ended).then_some((call, pulling, node))))
        }
        Err(error) => Some((Err(error.status(call.id)), None)),
    }
}

fn pull_order(request: v1::PullRequest, who: &str) -> Result<PullOrder, CallError> {
    let repository = Repository::new(&request.registry, &request.repository)
        .map_err(|error| CallError::Field { field: "repository", words: error.to_string() })?;
    let (username, password) = (request.username, request.password);
    let credentials = (!username.is_empty()).then_some(Credentials { username, password });
    Ok(PullOrder { repository, bundle: digest("bundle", &request.bundle)?, credentials, who: who.to_owned() })
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
            incoming.write(bytes)?;
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

fn plan_response(plan: &Plan, room: Room) -> v1::PlanResponse {
    let missing = plan.missing.iter().map(|blob| v1::MissingBlob {
        digest: blob.digest.to_string(),
        size: blob.size,
        received: blob.received,
    });
    let no_disk = (plan.bytes > plan.free).then(|| {
        format!(
            "{} MiB of disk are needed and {} MiB are free for models: remove one, or make room",
            plan.bytes.div_ceil(1 << 20),
            plan.free >> 20
        )
    });
    let refusals: Vec<String> = no_disk.into_iter().chain(room.refusal).collect();
    v1::PlanResponse {
        bundle: plan.bundle.to_string(),
        missing: missing.collect(),
        bytes: plan.bytes,
        free: plan.free,
        memory: room.needed,
        memory_free: room.available,
        refusal: refusals.join("; "),
        in_turn: room.in_turn,
    }
}

fn event_message(progress: Progress) -> v1::ActivateResponse {
    use v1::activate_response::Event;
    let event = match progress {
        Progress::Verified { bytes } => Event::Verified(v1::ModelVerified { bytes }),
        Progress::Prepared(prepared) => Event::Prepared(v1::ModelPrepared {
            apart: prepared.apart,
            allowed: prepared.allowed,
            tokens_per_second: prepared.tokens_per_second,
            kernels: prepared.kernels,
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
        StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::Damaged { .. } | StoreError::Newer { .. } => {
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

/// The same of a pull.
pub(super) fn describe_pull(error: &PullError) -> (tonic::Code, &'static str) {
    use recurve_proto::reason;
    use tonic::Code;
    match error {
        PullError::Store(error) => describe(error),
        PullError::Full => (Code::ResourceExhausted, reason::PULLS_FULL),
        PullError::Registry(error) => match error {
            error if error.is_transient() => (Code::Unavailable, reason::REGISTRY_UNREACHABLE),
            RegistryError::NotFound { .. } => (Code::NotFound, reason::REGISTRY_NOT_FOUND),
            RegistryError::WrongBytes { .. } => (Code::DataLoss, reason::REGISTRY_WRONG_BYTES),
            RegistryError::NotABundle { .. } | RegistryError::Bundle(_) => {
                (Code::FailedPrecondition, reason::MODEL_UNUSABLE)
            }
            RegistryError::AuthFile { .. } | RegistryError::Setup { .. } | RegistryError::Read { .. } => {
                (Code::FailedPrecondition, reason::REGISTRY_SETTINGS)
            }
            _ => (Code::FailedPrecondition, reason::REGISTRY_REFUSED),
        },
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
        DeployError::NoMemory(_) => (Code::FailedPrecondition, reason::NO_MEMORY),
        DeployError::Stopping => (Code::Unavailable, reason::SHUTTING_DOWN),
        DeployError::Stuck(_) => (Code::Internal, reason::ENGINE_FAILED),
        DeployError::Unusable(_) => (Code::FailedPrecondition, reason::MODEL_UNUSABLE),
    }
}
