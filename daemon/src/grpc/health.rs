//! `grpc.health.v1` and reflection.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::node::{Node, Phase};

/// The services whose health is told; the empty name stands for the node.
const SERVICES: [&str; 2] = ["", "recurve.v1.Inference"];

/// Adds the health service, which follows the node's phase until `end`.
pub(super) async fn add(routes: &mut RoutesBuilder, node: &Arc<Node>, end: CancellationToken) {
    let (reporter, service) = health_reporter();
    let mut phases = node.watch();
    tell(&reporter, &phases.borrow_and_update().clone()).await;
    routes.add_service(service);
    tokio::spawn(async move {
        let follow = async {
            while phases.changed().await.is_ok() {
                let phase = phases.borrow_and_update().clone();
                tell(&reporter, &phase).await;
            }
        };
        end.run_until_cancelled(follow).await;
    });
}

/// Adds reflection in both of its versions.
///
/// # Errors
/// The descriptors are damaged.
pub(super) fn add_reflection(routes: &mut RoutesBuilder) -> Result<(), tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(recurve_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(builder().build_v1()?);
    routes.add_service(builder().build_v1alpha()?);
    Ok(())
}

async fn tell(reporter: &HealthReporter, phase: &Phase) {
    let status = match phase {
        Phase::Serving(_) => ServingStatus::Serving,
        Phase::Loading | Phase::Stopping => ServingStatus::NotServing,
    };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
