//! The pure core of roomcast: rooms, their wire formats, and the fan-out to their members.
//!
//! The core holds no runtime, socket, clock, lock or log. The server passes `now` in, and takes results out
//! as values. So a simulated world can drive the core through thousands of schedules.
//!
//! Dependencies point one way: [`room`] ← [`wire`] ← [`fanout`].
//!
//! - [`room`]: the order of one room, and everything that follows from the order.
//! - [`wire`]: frames to devices, frames from devices, publish requests, and the close table.
//! - [`cluster`]: slots and their homes, for many nodes.
//! - [`fanout`]: the members of a room on one shard, the pass over them, and their outboxes.
//! - [`limits`]: every bound, with the reaction past it.
//! - [`proto`]: the schema of `proto/room.proto`.
//! - [`node_proto`]: the schemas of `proto/cluster.proto`, `proto/heartbeat.proto` and `proto/quota.proto`.

#[macro_use]
mod named;

pub mod cluster;
pub mod fanout;
pub mod limits;
pub mod now;
pub mod room;
pub mod wire;

/// The schema of `proto/room.proto`.
#[expect(missing_docs, reason = "generated code; the schema is documented in proto/room.proto")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/roomcast.v1.rs"));
}

/// The schemas of `proto/cluster.proto`, `proto/heartbeat.proto` and `proto/quota.proto`.
#[expect(missing_docs, reason = "generated code; the schema is documented in proto/")]
pub mod node_proto {
    include!(concat!(env!("OUT_DIR"), "/roomcast.cluster.v1.rs"));
}
