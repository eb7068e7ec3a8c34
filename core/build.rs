//! Compiles `proto/room.proto` into Rust, in pure Rust: a build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../proto/room.proto");
    let schema = protox::compile(["../proto/room.proto"], ["../proto"])?;
    // `Bytes` for payloads: a clone is a reference. Ordered maps: one value has one encoding, in every run.
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(schema)?;
    Ok(())
}
