//! Calls of those who run a node: how it is now, what it logged, who changed it, its settings, and taking it out of service.

#[cfg(test)]
pub(crate) mod fake;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use recurve_proto::v1::node_client::NodeClient;
use recurve_proto::v1::{
    AuditRequest, AuditResponse, ChangedSetting, CheckRequest, ConfigureRequest, DescribeNodeRequest,
    DescribeNodeResponse, DrainRequest, DrainResponse, Finding, LogsRequest, LogsResponse, WatchNodeRequest,
    WatchNodeResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::exit::Failure;
use crate::status::{Stage, Trouble};
use crate::target::{Address, Peer, Shown, Target};

/// A connection to a node, for who runs it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    peer: Peer,
    node: NodeClient<Channel>,
    patience: Duration,
}

/// What a node tells, message by message.
#[derive(Debug)]
pub(crate) struct Told<T> {
    peer: Peer,
    stream: Streaming<T>,
}

impl<T> Told<T> {
    /// The next message; none where the node ended the stream in order.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Trouble> {
        self.stream.message().await.map_err(|status| Trouble::calling(&self.peer, &status, Stage::Answering))
    }

    /// As [`next`](Self::next), of a stream that should not be silent for so long.
    pub(crate) async fn next_within(&mut self, silent: Duration) -> Result<Option<T>, Trouble> {
        match tokio::time::timeout(silent, self.next()).await {
            Ok(next) => next,
            Err(_) => Err(Trouble::lost(&self.peer.target, format!("it said nothing for {silent:?}"))),
        }
    }
}

impl Node {
    /// Connects to the daemon at this address, which may be silent for so long.
    pub(crate) async fn at(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let (channel, peer) = super::channel(address, patience).await?;
        Ok(Self { peer, node: NodeClient::new(channel), patience })
    }

    /// The daemon's address.
    pub(crate) fn target(&self) -> &Target {
        &self.peer.target
    }

    /// What the node is.
    pub(crate) async fn describe(&mut self) -> Result<DescribeNodeResponse, Trouble> {
        let mut node = self.node.clone();
        self.answered(node.describe(DescribeNodeRequest {})).await
    }

    /// What the node finds wrong with its machine.
    pub(crate) async fn check(&mut self) -> Result<Vec<Finding>, Trouble> {
        let mut node = self.node.clone();
        Ok(self.answered(node.check(CheckRequest {})).await?.findings)
    }

    /// How the node is now, at once and then again and again.
    pub(crate) async fn watch(&mut self, every: Duration) -> Result<Told<WatchNodeResponse>, Trouble> {
        let mut node = self.node.clone();
        // Only a duration of more than 10,000 years does not fit.
        let every = prost_types::Duration::try_from(every).ok();
        let stream = self.answered(node.watch(WatchNodeRequest { every })).await?;
        Ok(self.told(stream))
    }

    /// What the node logged.
    pub(crate) async fn logs(&mut self, request: LogsRequest) -> Result<Told<LogsResponse>, Trouble> {
        let mut node = self.node.clone();
        let stream = self.answered(node.logs(request)).await?;
        Ok(self.told(stream))
    }

    /// Who changed what on the node, after this line.
    pub(crate) async fn audit(&mut self, after: u64) -> Result<Told<AuditResponse>, Trouble> {
        let mut node = self.node.clone();
        let stream = self.answered(node.audit(AuditRequest { after })).await?;
        Ok(self.told(stream))
    }

    /// Changes settings, all of them or none; gives those that are another now.
    pub(crate) async fn configure(
        &mut self,
        settings: BTreeMap<String, String>,
    ) -> Result<Vec<ChangedSetting>, Trouble> {
        let mut node = self.node.clone();
        Ok(self.answered(node.configure(ConfigureRequest { settings })).await?.changed)
    }

    /// Takes the node out of service and tells how much is left to do, or has it serve again.
    pub(crate) async fn drain(&mut self, resume: bool) -> Result<Told<DrainResponse>, Trouble> {
        let mut node = self.node.clone();
        let stream = self.answered(node.drain(DrainRequest { resume })).await?;
        Ok(self.told(stream))
    }

    fn told<T>(&self, stream: Streaming<T>) -> Told<T> {
        Told { peer: self.peer.clone(), stream }
    }

    async fn answered<T>(&mut self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Trouble> {
        match tokio::time::timeout(self.patience, call).await {
            Ok(Ok(response)) => {
                self.peer.shown = Shown::Enough;
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(trouble(&self.peer, &status)),
            Err(_) => Err(Trouble::lost(&self.peer.target, format!("it gave no answer for {:?}", self.patience))),
        }
    }
}

/// Why a call was not answered. A daemon that does not know the service is an older one.
fn trouble(peer: &Peer, status: &Status) -> Trouble {
    let trouble = Trouble::calling(peer, status, Stage::Asked);
    if status.code() != Code::Unimplemented || trouble.lost {
        return trouble;
    }
    let words = "the daemon is older than this agent-cli and does not know this call: update recurved there".to_owned();
    Trouble { failure: Failure::Failed(format!("{}: {words}", peer.target)), words, ..trouble }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_daemon_lacks_is_told_as_that() {
        let served = fake::Fake { instance: "a", lines: 0 }.serve(0);
        let mut node = Node::at(&served.address, Duration::from_secs(60)).await.unwrap();
        assert_eq!(node.describe().await.unwrap().state.unwrap().instance, "a");
        let refused = node.configure(BTreeMap::new()).await.unwrap_err();
        assert!(refused.failure.message().unwrap().contains("is older than this agent-cli"), "{refused:?}");
    }

    #[test]
    fn an_older_daemon_is_called_that() {
        let target = Target::Tcp { host: "gw-1".to_owned(), port: 50051 };
        let peer = Address { target, certificates: None }.peer();
        let old = trouble(&peer, &Status::unimplemented(""));
        assert!(!old.lost && old.words.starts_with("the daemon is older than this agent-cli"), "{old:?}");
        assert!(old.failure.message().unwrap().starts_with("gw-1:50051: the daemon is older"), "{old:?}");
        // What answers without gRPC is no daemon at all.
        let none =
            trouble(&peer, &Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404"));
        assert!(none.lost && !none.words.contains("older"), "{none:?}");
    }
}
