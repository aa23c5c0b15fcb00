//! Makes Rust of `micro/*.proto`, without protoc: what it would make is small, and a build that
//! needs a program of the system is a build that fails somewhere.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 17] = [
    "broker.proto",
    "registry.proto",
    "router.proto",
    "network.proto",
    "rules.proto",
    "debug.proto",
    "errors.proto",
    "etcd.proto",
    "store.proto",
    "auth.proto",
    "v3_broker.proto",
    "v3_events.proto",
    "v3_registry.proto",
    "v3_router.proto",
    "v3_network.proto",
    "v3_store.proto",
    "v3_auth.proto",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=micro");
    let set = protox::compile(FILES, ["micro"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("micro.descriptors"), set.encode_to_vec())?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(set)?;
    Ok(())
}
