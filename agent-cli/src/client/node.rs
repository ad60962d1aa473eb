//! Calls about the node itself: how it is, and how it was.

use std::time::Duration;

use recurve_proto::v1::node_client::NodeClient;
use recurve_proto::v1::{TelemetryRequest, TelemetryResponse};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::status::{Stage, Trouble};
use crate::target::{Address, Peer, Shown};

/// Largest message of a history: the daemon sends far smaller ones.
const LARGEST_MESSAGE: usize = 16 << 20;

/// A connection to a daemon, for who looks after its node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    peer: Peer,
    node: NodeClient<Channel>,
    patience: Duration,
}

impl Node {
    /// Connects to the daemon at this address, which may be silent for so long.
    pub(crate) async fn at(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let (channel, peer) = super::channel(address, patience).await?;
        let node = NodeClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        Ok(Self { peer, node, patience })
    }

    async fn in_time<T>(&mut self, answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Trouble> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(response)) => {
                self.peer.shown = Shown::Enough;
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(Trouble::calling(&self.peer, &status, Stage::Asked)),
            Err(_) => Err(silent(&self.peer, self.patience)),
        }
    }
}

fn silent(peer: &Peer, patience: Duration) -> Trouble {
    Trouble::lost(&peer.target, format!("it gave no answer for {patience:?}"))
}

// The history.

/// A node's history as it arrives.
#[derive(Debug)]
pub(crate) struct History {
    peer: Peer,
    patience: Duration,
    messages: Streaming<TelemetryResponse>,
}

impl Node {
    /// Asks for the history of `store` after a record, or of whatever store there is.
    pub(crate) async fn telemetry(&mut self, request: TelemetryRequest) -> Result<History, Trouble> {
        let mut node = self.node.clone();
        let messages = self.in_time(node.telemetry(request)).await?;
        Ok(History { peer: self.peer.clone(), patience: self.patience, messages })
    }
}

impl History {
    /// The next records; none after the newest.
    pub(crate) async fn next(&mut self) -> Result<Option<TelemetryResponse>, Trouble> {
        match tokio::time::timeout(self.patience, self.messages.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(Trouble::calling(&self.peer, &status, Stage::Answering)),
            Err(_) => Err(silent(&self.peer, self.patience)),
        }
    }
}
