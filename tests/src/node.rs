//! What an operator asks of a node over the wire.

use recurve_proto::v1;
use recurve_proto::v1::node_client::NodeClient;
use recurve_proto::v1::telemetry_record::Content;
use tonic::transport::Channel;

use crate::client::{channel, soon};
use crate::daemon::Daemon;

/// A client of the service.
pub async fn operator(daemon: &Daemon) -> NodeClient<Channel> {
    NodeClient::new(channel(daemon).await)
}

/// The node's history after a record, and whose it is.
pub async fn history(daemon: &Daemon, after: u64) -> (String, Vec<v1::TelemetryRecord>) {
    let mut operator = operator(daemon).await;
    let described = soon(operator.describe(v1::DescribeNodeRequest {})).await.expect("an answer").into_inner();
    let request = v1::TelemetryRequest { store: described.store, after, since: None, metrics: Vec::new() };
    let mut stream = soon(operator.telemetry(request)).await.expect("an answer").into_inner();
    let (mut store, mut records) = (String::new(), Vec::new());
    while let Some(message) = soon(stream.message()).await.expect("a whole stream") {
        if !message.store.is_empty() {
            store = message.store;
        }
        records.extend(message.records);
    }
    (store, records)
}

/// The kinds of the events among these.
pub fn kinds(records: &[v1::TelemetryRecord]) -> Vec<&str> {
    records
        .iter()
        .filter_map(|record| match &record.content {
            Some(Content::Event(event)) => Some(event.kind.as_str()),
            _ => None,
        })
        .collect()
}

/// The samples among these.
pub fn samples(records: &[v1::TelemetryRecord]) -> impl Iterator<Item = &v1::Sample> {
    records.iter().filter_map(|record| match &record.content {
        Some(Content::Sample(sample)) => Some(sample),
        _ => None,
    })
}
