//! A collector that takes OTLP.

use std::time::Duration;

use recurve_telemetry::wire::collector::metrics::v1::ExportMetricsServiceRequest;
use recurve_telemetry::wire::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use recurve_telemetry::wire::metrics::v1::ResourceMetrics;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::CONNECT;
use crate::exit::Failure;
use crate::status;

/// A connection to a collector.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    endpoint: String,
    client: MetricsServiceClient<Channel>,
    patience: Duration,
}

/// What a collector did not take of what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// Points.
    pub(crate) points: u64,
    /// Why, in its words.
    pub(crate) words: String,
}

impl Collector {
    /// Connects. `authority`: certificates in PEM that are believed instead of the system's.
    pub(crate) async fn connect(endpoint: &str, authority: Option<&[u8]>, patience: Duration) -> Result<Self, Failure> {
        let wrong = |words: String| {
            Failure::Usage(format!("--otlp {endpoint:?} {words}; allowed: http://host:4317 or https://host:4317"))
        };
        let mut to = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| wrong(format!("is no address ({error})")))?
            .connect_timeout(CONNECT.min(patience))
            .timeout(patience);
        match (to.uri().scheme_str(), to.uri().host()) {
            (Some("http"), Some(_)) => {}
            (Some("https"), Some(_)) => {
                let tls = match authority {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                to = to.tls_config(tls).map_err(|error| wrong(format!("cannot be used: {}", status::root(&error))))?;
            }
            _ => return Err(wrong("does not say how it is reached".to_owned())),
        }
        let channel = to.connect().await.map_err(|error| {
            Failure::Unreachable(format!("the collector {endpoint} cannot be reached: {}", status::root(&error)))
        })?;
        Ok(Self { endpoint: endpoint.to_owned(), client: MetricsServiceClient::new(channel), patience })
    }

    /// Its address, as it was given.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends samples; gives what the collector took only in part.
    pub(crate) async fn export(&mut self, metrics: Vec<ResourceMetrics>) -> Result<Option<Rejected>, Failure> {
        let request = ExportMetricsServiceRequest { resource_metrics: metrics };
        let endpoint = &self.endpoint;
        match tokio::time::timeout(self.patience, self.client.export(request)).await {
            Ok(Ok(answer)) => Ok(answer
                .into_inner()
                .partial_success
                // One that rejects nothing is a warning at most.
                .filter(|partial| partial.rejected_data_points > 0)
                .map(|partial| Rejected {
                    points: u64::try_from(partial.rejected_data_points).unwrap_or(0),
                    words: partial.error_message,
                })),
            Ok(Err(error)) if status::is_lost(&error) => {
                Err(Failure::Unreachable(format!("the collector {endpoint} cannot answer: {}", error.message())))
            }
            Ok(Err(error)) => Err(Failure::Failed(format!(
                "the collector {endpoint} refused: {} ({:?})",
                error.message(),
                error.code()
            ))),
            Err(_) => {
                Err(Failure::Unreachable(format!("the collector {endpoint} gave no answer for {:?}", self.patience)))
            }
        }
    }
}
