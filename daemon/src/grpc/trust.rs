//! `recurve.v1.Trust`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use recurve_proto::v1::trust_server::{Trust as Api, TrustServer};
use recurve_proto::{reason, v1};
use tokio::task::spawn_blocking;
use tonic::{Code, Request, Response, Status};
use tracing::info;
use uuid::Uuid;

use super::access::{self, Right};
use super::call;
use super::models;
use super::peer::{self, Peer};
use super::status::CallError;
use crate::deployment::Models;
use crate::node::Node;
use crate::trust::{Files, MOST, Mode, State, Trust, TrustError};

/// Bytes of a message beside the metadata in it.
const FRAME: usize = 256 << 10;

/// The service for the routes; without models where the node serves the bundle of its configuration.
pub(super) fn service(node: &Arc<Node>, models: Option<&Models>) -> TrustServer<Service> {
    let trust = models.map(|models| Arc::clone(&models.trust));
    let service = TrustServer::new(Service { node: Arc::clone(node), trust });
    // A set that is too large is told so by name, as long as it is not much too large.
    service.max_decoding_message_size(usize::try_from(MOST).unwrap_or(usize::MAX).saturating_add(FRAME))
}

/// Answers operators.
#[derive(Debug)]
pub(super) struct Service {
    node: Arc<Node>,
    trust: Option<Arc<Trust>>,
}

impl Service {
    /// Does what waits for the disk, and tells what is believed after it.
    async fn answer<T: Send + 'static>(
        &self,
        method: &'static str,
        right: Right,
        request: Request<T>,
        work: impl FnOnce(&Trust, T, &str) -> Result<(), TrustError> + Send + 'static,
    ) -> Result<Response<v1::TrustState>, Status> {
        let id = Uuid::now_v7();
        let extensions = request.extensions();
        let who = peer::client(extensions).0.to_string();
        let open = self.node.call();
        let trust = access::check(extensions.get::<Peer>(), right)
            .and_then(|()| call::unless_stopping(&self.node))
            .and_then(|()| self.trust.clone().ok_or(CallError::NotManaged))
            .map_err(|error| error.status(id))?;
        let message = request.into_inner();
        let worked = spawn_blocking({
            let who = who.clone();
            move || {
                let _open = open;
                work(&trust, message, &who).map(|()| trust.state())
            }
        });
        let result = match worked.await {
            Ok(result) => result.map_err(CallError::Trust),
            Err(_) => Err(CallError::Abandoned),
        };
        let answer = result.map(|state| Response::new(state_message(&state))).map_err(|error| error.status(id));
        let outcome = answer.as_ref().err().map_or("done", Status::message);
        info!(method, request = %id, client = who, outcome, "operation");
        answer
    }
}

#[tonic::async_trait]
impl Api for Service {
    async fn install(&self, request: Request<v1::InstallTrustRequest>) -> Result<Response<v1::TrustState>, Status> {
        self.answer("Install", Right::Operate, request, |trust, message, who| trust.install(&message.root, who)).await
    }

    async fn update(&self, request: Request<v1::UpdateTrustRequest>) -> Result<Response<v1::TrustState>, Status> {
        self.answer("Update", Right::Operate, request, |trust, message, who| {
            let files = message.files.into_iter().map(|file| (file.name, file.content)).collect();
            trust.update(Files::new(files), who)
        })
        .await
    }

    async fn get(&self, request: Request<v1::GetTrustRequest>) -> Result<Response<v1::TrustState>, Status> {
        self.answer("Get", Right::Operate, request, |_, _, _| Ok(())).await
    }

    async fn reset_clock(&self, request: Request<v1::ResetClockRequest>) -> Result<Response<v1::TrustState>, Status> {
        self.answer("ResetClock", Right::OperateHere, request, |trust, _, who| trust.reset_clock(who)).await
    }
}

fn state_message(state: &State) -> v1::TrustState {
    let mode = match state.mode {
        Mode::Off => v1::TrustMode::Off,
        Mode::Warn => v1::TrustMode::Warn,
        Mode::Enforce => v1::TrustMode::Enforce,
    };
    let role = |(role, version, expires): &(tough::schema::RoleType, u64, DateTime<Utc>)| v1::RoleState {
        role: role.to_string(),
        version: *version,
        expires: Some(timestamp(expires)),
    };
    v1::TrustState {
        mode: mode.into(),
        roles: state.roles.iter().map(role).collect(),
        bundles: state.bundles.iter().map(ToString::to_string).collect(),
        known_time: state.known_time.as_ref().map(timestamp),
        clock_behind: state.clock_behind,
    }
}

fn timestamp(time: &DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}

/// Code and stable reason of what is not believed.
pub(super) fn describe(error: &TrustError) -> (Code, &'static str) {
    match error {
        TrustError::NoRoot => (Code::FailedPrecondition, reason::NO_TRUST_ROOT),
        TrustError::Installed { .. } => (Code::AlreadyExists, reason::TRUST_INSTALLED),
        TrustError::NotSigned { .. } => (Code::FailedPrecondition, reason::NOT_SIGNED),
        TrustError::Expired { .. } => (Code::FailedPrecondition, reason::TRUST_EXPIRED),
        TrustError::ClockBehind { .. } | TrustError::ClockNotSet { .. } => {
            (Code::FailedPrecondition, reason::CLOCK_BEHIND)
        }
        TrustError::RolledBack(_) => (Code::FailedPrecondition, reason::TRUST_ROLLED_BACK),
        TrustError::Mixed(_) => (Code::InvalidArgument, reason::TRUST_MIXED),
        TrustError::TooLarge { .. } => (Code::InvalidArgument, reason::TRUST_TOO_LARGE),
        TrustError::Invalid(_) => (Code::InvalidArgument, reason::TRUST_INVALID),
        TrustError::Damaged { .. } => (Code::Internal, reason::STORE_FAILED),
        TrustError::Store(error) => models::describe(error),
    }
}
