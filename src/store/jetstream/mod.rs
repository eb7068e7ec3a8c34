//! The store on JetStream: a log for each slot, in eight streams of a NATS cluster.
//!
//! - [`orders`]: the words between the cluster and the log. `way`: their queues.
//! - `slot`: the pure machine of one slot; `claim`, `commit`, `fetch` and `image` are its parts, and `record` has the
//!   bytes. `ops`: the words between the machines and the client.
//! - `log`: the client. `streams`: the streams, made or checked. `proof`: do the servers sync?
//! - `thread`: drives the machines. `open`: its start. `desks`: the requests of shards. `turns`: the
//!   appends under way. `guard`: the watch over the
//!   servers. `holds`: the slots for metrics.

mod claim;
mod commit;
mod desks;
mod fetch;
mod guard;
mod holds;
mod image;
mod log;
mod open;
mod ops;
pub mod orders;
mod proof;
mod record;
mod slot;
mod streams;
mod thread;
mod turns;
mod way;

pub use self::open::LogStartError;
pub(super) use self::thread::LogThread;
pub use self::thread::{Committed, start};
pub use self::way::LogWay;

#[cfg(test)]
mod tests;
