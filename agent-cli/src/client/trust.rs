//! Calls about whose models a daemon believes, and the signatures that travel with a bundle.

use std::path::Path;

use recurve_author::trust::{self, Files, TrustError, Versions};
use recurve_bundle::Bundle;
use recurve_proto::reason;
use recurve_proto::v1::trust_client::TrustClient;
use recurve_proto::v1::{
    GetTrustRequest, InstallTrustRequest, MetadataFile, ResetClockRequest, TrustMode, TrustState, UpdateTrustRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::models::{Operator, PATIENCE};
use crate::args::On;
use crate::exit::Failure;
use crate::output;
use crate::status::{Stage, Trouble};
use crate::target::{Peer, Target};

/// A connection to a daemon, for who decides whom it believes.
#[derive(Debug, Clone)]
pub(crate) struct Truster {
    peer: Peer,
    trust: TrustClient<Channel>,
}

/// What a daemon believes after signatures were offered to it.
#[derive(Debug)]
pub(crate) struct Delivered {
    state: TrustState,
}

impl Delivered {
    /// Why the daemon will not serve this model, by the reason that it would give and in words, if that is certain already:
    /// then nothing of it has to travel.
    pub(crate) fn refusal(&self, bundle: &str) -> Option<(&'static str, String)> {
        if self.state.mode() != TrustMode::Enforce || self.state.bundles.iter().any(|signed| signed == bundle) {
            return None;
        }
        if self.state.roles.is_empty() {
            let words =
                "it serves signed models only, and has no root of trust: give it one with `agent-cli trust install`";
            return Some((reason::NO_TRUST_ROOT, words.to_owned()));
        }
        let words = format!(
            "no model {bundle} is signed for it: sign it with `agent-cli trust sign --dir TRUST BUNDLE`, and deploy it again"
        );
        Some((reason::NOT_SIGNED, words))
    }
}

impl Truster {
    /// Connects to the daemon that `on` names.
    pub(crate) async fn connect(on: &On) -> Result<Self, Failure> {
        let address = on.address()?;
        let (channel, peer) = super::channel(&address, PATIENCE).await?;
        Ok(Self::over(peer, channel))
    }

    /// The same over the connection that models travel on.
    pub(crate) fn of(operator: &Operator) -> Self {
        Self::over(operator.peer(), operator.channel())
    }

    /// The same over any connection.
    fn over(peer: Peer, channel: Channel) -> Self {
        Self { peer, trust: TrustClient::new(channel) }
    }

    /// The daemon's address.
    pub(crate) fn target(&self) -> &Target {
        &self.peer.target
    }

    /// Gives the daemon its first root.
    pub(crate) async fn install(&mut self, root: Vec<u8>) -> Result<TrustState, Trouble> {
        let response = self.trust.install(InstallTrustRequest { root: root.into() }).await;
        self.answered(response)
    }

    /// What the daemon believes.
    pub(crate) async fn get(&mut self) -> Result<TrustState, Trouble> {
        let response = self.trust.get(GetTrustRequest {}).await;
        self.answered(response)
    }

    /// Has the daemon take its clock's time for the latest one that was reached.
    pub(crate) async fn reset_clock(&mut self) -> Result<TrustState, Trouble> {
        let response = self.trust.reset_clock(ResetClockRequest {}).await;
        self.answered(response)
    }

    /// Gives the daemon newer metadata; roots that it has do not travel.
    pub(crate) async fn update(&mut self, files: &Files, root: u64) -> Result<TrustState, Trouble> {
        let old =
            |name: &str| name.strip_suffix(".root.json").and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n <= root);
        let new = files.iter().filter(|(name, _)| !old(name));
        let files = new.map(|(name, content)| MetadataFile { name: name.clone(), content: content.clone().into() });
        let response = self.trust.update(UpdateTrustRequest { files: files.collect() }).await;
        self.answered(response)
    }

    /// Offers signatures before a model is deployed. A daemon that knows newer ones keeps them, and decides by them; one
    /// without a root, whose mode is off, or that is too old for signatures, is sent nothing; one that only warns is not held up
    /// by what is wrong with them.
    pub(crate) async fn deliver(&mut self, files: Option<&Files>) -> Result<Delivered, Trouble> {
        let state = match self.trust.get(GetTrustRequest {}).await {
            Err(status) if status.code() == Code::Unimplemented => TrustState::default(),
            response => self.answered(response)?,
        };
        let Some(files) = files.filter(|_| state.mode() != TrustMode::Off && !state.roles.is_empty()) else {
            return Ok(Delivered { state });
        };
        let version = |name: &str| state.roles.iter().find(|role| role.role == name).map_or(0, |role| role.version);
        let known = Versions { root: version("root"), timestamp: version("timestamp") };
        if Versions::of(files).map_err(unusable)? <= known {
            return Ok(Delivered { state });
        }
        match self.update(files, known.root).await {
            Ok(state) => Ok(Delivered { state }),
            Err(trouble) if state.mode() == TrustMode::Warn && !trouble.lost => {
                output::aside(&format!("{}: signatures were not taken: {}", self.peer.target, trouble.words));
                Ok(Delivered { state })
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn answered(&self, response: Result<Response<TrustState>, Status>) -> Result<TrustState, Trouble> {
        response.map(Response::into_inner).map_err(|status| Trouble::calling(&self.peer, &status, Stage::Asked))
    }
}

/// The newest signatures of a bundle: those that it carries, or those of a folder that `agent-cli trust` keeps.
pub(crate) fn signatures_of(bundle: &Bundle, folder: Option<&Path>) -> Result<Option<Files>, Failure> {
    newest(trust::attached(bundle).map_err(failure)?, folder)
}

/// The newer ones of these signatures and those of a folder that `agent-cli trust` keeps.
pub(crate) fn newest(own: Option<Files>, folder: Option<&Path>) -> Result<Option<Files>, Failure> {
    let others = folder.map(trust::published).transpose().map_err(failure)?;
    match (own, others) {
        (Some(own), Some(others)) => trust::newer(own, others).map(Some).map_err(failure),
        (own, others) => Ok(own.or(others)),
    }
}

/// Signatures that no device can be given.
fn unusable(error: TrustError) -> Trouble {
    Trouble { reason: reason::TRUST_INVALID.to_owned(), ..Trouble::from(failure(error)) }
}

/// How a command ends that cannot use signatures.
pub(crate) fn failure(error: TrustError) -> Failure {
    let text = error.to_string();
    match error {
        TrustError::Damaged { .. } | TrustError::Bundle(_) | TrustError::Key { .. } => Failure::Damaged(text),
        TrustError::WhichKey { .. } | TrustError::Threshold { .. } | TrustError::Validity { .. } => {
            Failure::Usage(text)
        }
        _ => Failure::Failed(text),
    }
}
