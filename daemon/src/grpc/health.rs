//! `grpc.health.v1` and reflection.

use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::node::{Node, Phase};

/// The services whose health is told; the empty name stands for the node.
const SERVICES: [&str; 2] = ["", "recurve.v1.Inference"];

/// Adds the health service; the reporter is what [`tell`] tells it with.
pub(super) async fn add(routes: &mut RoutesBuilder, node: &Node) -> HealthReporter {
    let (reporter, service) = health_reporter();
    tell(&reporter, node).await;
    routes.add_service(service);
    reporter
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

/// Answers from now on as the node is.
pub(super) async fn tell(reporter: &HealthReporter, node: &Node) {
    let status = match node.phase() {
        Phase::Serving(_) if !node.is_draining() => ServingStatus::Serving,
        Phase::Loading | Phase::Empty | Phase::Serving(_) | Phase::Switching | Phase::Stopping => {
            ServingStatus::NotServing
        }
    };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
