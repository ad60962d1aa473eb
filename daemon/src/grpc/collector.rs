//! The client of an OpenTelemetry collector: OTLP over gRPC.

use std::time::Duration;

use recurve_telemetry::wire::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use recurve_telemetry::wire::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use recurve_telemetry::wire::collector::trace::v1::trace_service_client::TraceServiceClient;
use recurve_telemetry::wire::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::status::code_name;
use crate::config::Collector;
use crate::telemetry::{Message, Signal};

/// A connection to the collector, made when it is first needed and again when it broke.
#[derive(Debug)]
pub struct CollectorClient {
    collector: Collector,
    channel: Option<Channel>,
}

/// What became of a message.
#[derive(Debug)]
pub enum Sent {
    /// The collector has it.
    Taken {
        /// It left out a part of it.
        rejected: Option<String>,
    },
    /// It will never take it.
    Refused(String),
    /// It may take it later.
    Away(String),
}

impl CollectorClient {
    /// Does not connect yet.
    pub fn new(collector: &Collector) -> Self {
        Self { collector: collector.clone(), channel: None }
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.collector.endpoint
    }

    /// Sends a message as it was made.
    pub async fn send(&mut self, message: &Message) -> Sent {
        let channel = match self.channel() {
            Ok(channel) => channel,
            Err(words) => return Sent::Away(words),
        };
        let sent = tokio::time::timeout(self.collector.timeout, self.call(channel, message)).await;
        match sent {
            Err(_) => {
                self.channel = None;
                Sent::Away(format!("it did not answer within {} s", self.collector.timeout.as_secs()))
            }
            Ok(Ok(sent)) => sent,
            Ok(Err(status)) => {
                let words = format!("{}: {}", code_name(status.code()), status.message());
                if may_be_tried_again(&status) { Sent::Away(words) } else { Sent::Refused(words) }
            }
        }
    }

    async fn call(&self, channel: Channel, message: &Message) -> Result<Sent, Status> {
        let damaged = |error: prost::DecodeError| Status::internal(format!("what was kept is damaged: {error}"));
        let rejected = match message.signal {
            Signal::Metrics => {
                let request: ExportMetricsServiceRequest =
                    prost::Message::decode(message.bytes.as_slice()).map_err(damaged)?;
                let answer = MetricsServiceClient::new(channel).export(self.request(request)).await?;
                let ExportMetricsServiceResponse { partial_success } = answer.into_inner();
                partial_success.map(|part| (part.rejected_data_points, "data points", part.error_message))
            }
            Signal::Traces => {
                let request: ExportTraceServiceRequest =
                    prost::Message::decode(message.bytes.as_slice()).map_err(damaged)?;
                let answer = TraceServiceClient::new(channel).export(self.request(request)).await?;
                let ExportTraceServiceResponse { partial_success } = answer.into_inner();
                partial_success.map(|part| (part.rejected_spans, "spans", part.error_message))
            }
        };
        let words = rejected
            .filter(|(count, _, words)| *count > 0 || !words.is_empty())
            .map(|(count, what, words)| format!("{count} {what} were rejected: {words}"));
        Ok(Sent::Taken { rejected: words })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        add_headers(request.metadata_mut(), &self.collector.headers);
        request.set_timeout(self.collector.timeout);
        request
    }

    fn channel(&mut self) -> Result<Channel, String> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = endpoint(&self.collector)?.connect_lazy();
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}

/// Connects within the collector's time; keeps the connection alive while something is sent.
fn endpoint(collector: &Collector) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(collector.endpoint.clone())
        .map_err(|error| format!("telemetry.endpoint {:?} is no address: {error}", collector.endpoint))?
        .connect_timeout(collector.timeout)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(collector.timeout);
    if !collector.endpoint.starts_with("https") {
        return Ok(endpoint);
    }
    let read = |key: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("{key} {} cannot be read: {error}", path.display()))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &collector.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read("telemetry.ca", ca)?)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &collector.own {
        let certificate = read("telemetry.certificate", certificate)?;
        tls = tls.identity(Identity::from_pem(certificate, read("telemetry.key", key)?));
    }
    endpoint.tls_config(tls).map_err(|error| format!("the certificates cannot be used: {error}"))
}

/// Headers whose names or values are none are left out: they were checked for a name and a value when they were read.
fn add_headers(metadata: &mut MetadataMap, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()), value.parse()) {
            metadata.insert(name, value);
        }
    }
}

/// As the specification of OTLP says (version 1.9, "Failures"), and where nobody answered. A message that is too large is one
/// for which resources are exhausted, or out of range, without a word of when to try again: it will never be taken.
fn may_be_tried_again(status: &Status) -> bool {
    if status.code() == Code::ResourceExhausted {
        return status.get_details_retry_info().is_some();
    }
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unavailable
            | Code::DataLoss
            // What a proxy, or a service that is being set up, answers.
            | Code::Unknown
            | Code::Unauthenticated
            | Code::PermissionDenied
    )
}
