//! roomcast: the broadcast engine for live rooms.
//!
//! A streaming backend publishes messages to a room over HTTP. Every device in the room gets the messages
//! over one WebSocket, in one order. This page is the tour: one picture, and the modules of the server.
//! `docs/architecture.md` has the reasons, `docs/concepts.md` the words.
//!
//! ```text
//!  POST /v1/rooms/{room}/messages                                            publisher door
//!   └ http            parse, check, look the type up → Message{type, class, key, payload}
//!      └ home shard     the one shard that orders this room; bounded inbox, full → 503
//!         ├ reliable?     an offset in the room's stream → store: one thread, one sync per commit → durable
//!         └ Room          gather · merge by key · sum counters; a reliable message joins once it is durable
//!            └ flush        the oldest message has waited long enough, or a batch is full, or it is urgent
//!               └ Batch       encoded once per encoding, WebSocket header and all: one `Bytes`
//!                  └ frame lane  every shard that holds members of the room gets the same bytes
//!                     └ Segment    the room's members on that shard, one pass: try_write(frame) for each
//!                        └ Outbox    frames that a socket did not take are owed: references, no copies
//! ```
//!
//! The pure core is the crate [`roomcast_core`]: rooms, wire formats, the fan-out. This crate is the shell
//! around it: threads, sockets, files, clocks.
//!
//! - [`auth`] (pure): publishers by key, devices by token, web pages by origin.
//! - [`clock`]: the only reader of the clock.
//! - [`config`]: four layers of configuration, checked as a whole.
//! - [`door`]: a question to the operator door of a running node.
//! - [`health`]: the health check of a container.
//! - `http`: the three doors, from accept to upgrade.
//! - [`metrics`]: each metric, defined once.
//! - `nats`: the login to NATS.
//! - [`seat`]: the node's places for connections.
//! - [`server`]: assembles the parts, and owns the order of their stop.
//! - [`shard`]: one thread that owns rooms, segments and connections; the lanes between shards; the bounded
//!   way in from the doors.
//! - [`status`]: the status of a cluster, as a table.
//! - [`store`]: reliable messages until their expiry: the promises, the file, and the thread that owns the
//!   file.

pub mod auth;
pub mod clock;
pub(crate) mod cluster;
pub mod config;
pub mod door;
pub mod health;
mod http;
pub mod metrics;
mod nats;
pub mod seat;
pub mod server;
pub mod shard;
pub mod status;
pub mod store;
