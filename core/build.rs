//! Compiles the schemas in `proto/` into Rust, in pure Rust: a build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas =
        ["../proto/room.proto", "../proto/cluster.proto", "../proto/heartbeat.proto", "../proto/quota.proto"];
    for schema in schemas {
        println!("cargo::rerun-if-changed={schema}");
    }
    let schema = protox::compile(schemas, ["../proto"])?;
    // `Bytes` for payloads: a clone is a reference. Ordered maps: one value has one encoding, in every run.
    let mut config = prost_build::Config::new();
    // A room is far larger than any other word.
    config.bytes(["."]).btree_map(["."]).boxed(".roomcast.cluster.v1.HandOver.said.room");
    config.compile_fds(schema)?;
    Ok(())
}
