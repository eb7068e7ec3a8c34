//! The store on JetStream: a log for each slot, in eight streams of a NATS cluster.

mod ops;
pub mod orders;
mod slot;
