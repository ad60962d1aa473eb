//! Compiles the `.proto` files without `protoc`, and keeps the descriptor set for reflection.

use std::path::PathBuf;

const FILES: [&str; 4] =
    ["recurve/v1/inference.proto", "recurve/v1/models.proto", "recurve/v1/node.proto", "recurve/v1/trust.proto"];

/// Messages whose maps are in order: what is written to disk or shown is the same each time.
const ORDERED: [&str; 5] = ["Series", "NodeEvent", "LogLine", "ConfigureRequest", "DescribeNodeResponse"];

#[expect(clippy::disallowed_methods, reason = "Cargo tells build scripts their folder by the environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=recurve");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("recurve.binpb"), protox::prost::Message::encode_to_vec(&descriptors))?;
    let mut build = tonic_prost_build::configure().bytes(".");
    for message in ORDERED {
        build = build.btree_map(format!(".recurve.v1.{message}"));
    }
    build.compile_fds(descriptors)?;
    Ok(())
}
