//! Generates the messages and servers of the built-in services. No protoc: protox reads the files.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/greeter.proto", "proto/echo.proto", "proto/clock.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let set = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("builtin.bin"), prost::Message::encode_to_vec(&set))?;
    tonic_prost_build::configure().build_client(true).compile_fds(set)?;
    Ok(())
}
