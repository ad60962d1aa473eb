//! A device without a model: it takes every bundle as if it had it already, and then changes as the test wants it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recurve_proto::v1::activate_response::Event;
use recurve_proto::v1::models_server::{Models, ModelsServer};
use recurve_proto::v1::{
    ActivateRequest, ActivateResponse, ListModelsRequest, ListModelsResponse, Model, ModelActive, NodeState,
    PlanRequest, PlanResponse, PullRequest, PullResponse, RemoveModelRequest, RemoveModelResponse, RollbackRequest,
    UploadRequest, UploadResponse, WatchModelsRequest, WatchModelsResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What becomes of a device after it began to serve the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A request was answered.
    Answered,
    /// A request failed.
    RequestsFailed,
    /// The daemon is another process.
    Restarted,
    /// It went back by itself.
    WentBack,
    /// It serves something else.
    ServesAnother,
    /// It serves nothing.
    NotServing,
    /// It does not know how to tell of changes.
    WatchUnknown,
    /// It tells of none any more.
    WatchEnds,
}

/// A device of the test's own; it ends with the test.
pub(crate) struct Device {
    pub(crate) on: String,
    _runtime: tokio::runtime::Runtime,
}

impl Device {
    /// On a free port of this machine.
    pub(crate) fn start(bundle: &str, changes: Vec<Change>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let state = NodeState { instance: "first".to_owned(), serving: true, ..NodeState::default() };
        let now = ListModelsResponse { models: Vec::new(), state: Some(state) };
        let service = Service { bundle: bundle.to_owned(), changes, now: Arc::new(Mutex::new(now)) };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let on = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(ModelsServer::new(service));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { on, _runtime: runtime }
    }
}

struct Service {
    bundle: String,
    changes: Vec<Change>,
    now: Arc<Mutex<ListModelsResponse>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn apply(change: Change, bundle: &str, now: &mut ListModelsResponse) {
    let state = now.state.as_mut().unwrap();
    match change {
        Change::Answered => state.answered += 1,
        Change::RequestsFailed => state.failed += 1,
        Change::Restarted => state.instance = "second".to_owned(),
        Change::NotServing => state.serving = false,
        Change::ServesAnother => state.bundle = "sha256:other".to_owned(),
        Change::WentBack => {
            state.bundle = "sha256:old".to_owned();
            now.models.iter_mut().filter(|model| model.bundle == bundle).for_each(|model| {
                model.failure = "the engine ended".to_owned();
            });
        }
        Change::WatchUnknown | Change::WatchEnds => {}
    }
}

#[tonic::async_trait]
impl Models for Service {
    type ActivateStream = Answers<ActivateResponse>;
    type RollbackStream = Answers<ActivateResponse>;
    type PullStream = Answers<PullResponse>;
    type WatchStream = Answers<WatchModelsResponse>;

    async fn list(&self, _: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let mut now = self.now.lock().unwrap();
        let answer = now.clone();
        // Who does not tell of changes changes all the same.
        if self.changes.first() == Some(&Change::WatchUnknown) && !now.models.is_empty() {
            self.changes.iter().for_each(|change| apply(*change, &self.bundle, &mut now));
        }
        Ok(Response::new(answer))
    }

    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Ok(Response::new(PlanResponse { bundle: self.bundle.clone(), free: 1 << 30, ..PlanResponse::default() }))
    }

    async fn activate(&self, request: Request<ActivateRequest>) -> Result<Response<Self::ActivateStream>, Status> {
        let bundle = request.into_inner().bundle;
        let mut now = self.now.lock().unwrap();
        let name = "tiny".to_owned();
        now.models = vec![Model { bundle: bundle.clone(), name: name.clone(), active: true, ..Model::default() }];
        now.state.as_mut().unwrap().bundle.clone_from(&bundle);
        let active = Event::Active(ModelActive { bundle, name });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(ActivateResponse { event: Some(active) })))))
    }

    async fn watch(&self, _: Request<WatchModelsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let told =
            |now: &ListModelsResponse| WatchModelsResponse { models: now.models.clone(), state: now.state.clone() };
        let first = told(&self.now.lock().unwrap());
        match self.changes.first() {
            Some(Change::WatchUnknown) => return Err(Status::unimplemented("Watch")),
            Some(Change::WatchEnds) => return Ok(Response::new(Box::pin(tokio_stream::once(Ok(first))))),
            _ => {}
        }
        let (now, bundle) = (Arc::clone(&self.now), self.bundle.clone());
        let changes = tokio_stream::iter(self.changes.clone()).throttle(Duration::from_millis(20)).map(move |change| {
            let mut now = now.lock().unwrap();
            apply(change, &bundle, &mut now);
            Ok(told(&now))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(changes).chain(tokio_stream::pending()))))
    }

    async fn upload(&self, _: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        Err(Status::internal("nothing is missing"))
    }

    async fn pull(&self, _: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("Pull"))
    }

    async fn rollback(&self, _: Request<RollbackRequest>) -> Result<Response<Self::RollbackStream>, Status> {
        Err(Status::unimplemented("Rollback"))
    }

    async fn remove(&self, _: Request<RemoveModelRequest>) -> Result<Response<RemoveModelResponse>, Status> {
        Err(Status::unimplemented("Remove"))
    }
}
