//! Compiles the wire contract (`proto/`) without protoc, and lays its description beside it for the reflection service.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["mercat.proto", "users.proto", "catalog.proto", "payments.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".mercat.v1").compile_fds(files)?;
    Ok(())
}
