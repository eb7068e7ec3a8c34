//! Compiles `proto/room.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../proto/room.proto");
    let schema = protox::compile(["../proto/room.proto"], ["../proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(schema)?;
    Ok(())
}
