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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use recurve_telemetry::wire::collector::metrics::v1::metrics_service_server::{
        MetricsService, MetricsServiceServer,
    };
    use recurve_telemetry::wire::collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    };
    use recurve_telemetry::wire::metrics::v1::metric::Data;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::history::forward::{self, Told};
    use crate::history::made::{self, answer, hour, minute};

    /// Takes what is sent, as it is told to.
    #[derive(Clone, Default)]
    struct Takes {
        got: Arc<Mutex<Vec<ResourceMetrics>>>,
        refuses: Arc<Mutex<Option<Status>>>,
        rejects: i64,
    }

    #[tonic::async_trait]
    impl MetricsService for Takes {
        async fn export(
            &self,
            request: Request<ExportMetricsServiceRequest>,
        ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
            if let Some(status) = self.refuses.lock().unwrap().take() {
                return Err(status);
            }
            self.got.lock().unwrap().extend(request.into_inner().resource_metrics);
            let rejected =
                ExportMetricsPartialSuccess { rejected_data_points: self.rejects, error_message: "too old".to_owned() };
            Ok(Response::new(ExportMetricsServiceResponse { partial_success: Some(rejected) }))
        }
    }

    async fn serving(takes: Takes) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(MetricsServiceServer::new(takes));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        endpoint
    }

    /// When each point of the tokens that were made begins, in seconds.
    fn begun(got: &[ResourceMetrics]) -> Vec<u64> {
        let metrics = got.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        metrics
            .filter(|metric| metric.name == "recurve.tokens")
            .flat_map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => sum.data_points.clone(),
                _ => Vec::new(),
            })
            .map(|point| point.start_time_unix_nano)
            .collect()
    }

    #[tokio::test]
    async fn a_collector_gets_each_sample_once_with_the_time_at_which_it_was_taken() {
        let takes = Takes::default();
        let endpoint = serving(takes.clone()).await;
        let patience = Duration::from_secs(30);
        let mut collector = Collector::connect(&endpoint, None, patience).await.unwrap();
        let (_folder, mut store) = made::store();
        let records: Vec<_> = (1..=200).map(minute).collect();
        store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap();
        let kept = store.histories().unwrap().remove(0);
        // It refuses once: what it took stays taken, and the next time goes on there.
        *takes.refuses.lock().unwrap() = Some(Status::invalid_argument("not today"));
        let mut told = Told::default();
        let refused = forward::send(&store, &kept, &mut collector, &mut told).await.unwrap_err();
        assert!(matches!(&refused, Failure::Failed(words) if words.contains("not today")), "{refused:?}");
        forward::send(&store, &kept, &mut collector, &mut told).await.unwrap();
        assert_eq!(told.words("x"), "x took 200 samples");
        // Some of its minutes were sent: the hour is not, and what follows is.
        store.keep("gw-1", "a", 0, &answer("a", &[hour(180, 240), minute(241)])).unwrap();
        forward::send(&store, &kept, &mut collector, &mut told).await.unwrap();
        assert!(told.words("x").starts_with("x took 201 samples; 1 hours were left out"), "{}", told.words("x"));
        let expected: Vec<u64> = (1..=200_u64)
            .chain([241])
            .map(|number| u64::try_from(made::BEGIN).unwrap() + (number - 1) * 60_000_000_000)
            .collect();
        assert_eq!(begun(&takes.got.lock().unwrap()), expected);
    }

    #[tokio::test]
    async fn what_a_collector_rejects_is_told() {
        let endpoint = serving(Takes { rejects: 3, ..Takes::default() }).await;
        let mut collector = Collector::connect(&endpoint, None, Duration::from_secs(30)).await.unwrap();
        let (_folder, mut store) = made::store();
        store.keep("gw-1", "a", 0, &answer("a", &[minute(1)])).unwrap();
        let kept = store.histories().unwrap().remove(0);
        let mut told = Told::default();
        forward::send(&store, &kept, &mut collector, &mut told).await.unwrap();
        assert_eq!(told.words("x"), "x took 1 samples and rejected 3 points of them: too old");
    }

    #[tokio::test]
    async fn addresses_that_are_none_are_named() {
        for wrong in ["collector:4317", "ftp://collector", "", "http://"] {
            let failure = Collector::connect(wrong, None, Duration::from_secs(1)).await.unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(words) if words.contains("http://host:4317")),
                "{wrong} {failure:?}"
            );
        }
        let nobody = Collector::connect("http://127.0.0.1:1", None, Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(nobody, Failure::Unreachable(_)), "{nobody:?}");
    }
}
