//! The wire contract: messages, clients and servers generated from the `.proto` files beside this crate, and the
//! stable reasons that errors carry; and what both ends say of the files of TLS.

pub mod pem;
pub mod reason;

/// What `bytes` fields hold.
pub use prost::bytes::Bytes;

/// Package `recurve.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("recurve.v1");
}

/// All files of the contract as an encoded `google.protobuf.FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recurve.binpb"));
