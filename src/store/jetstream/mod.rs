//! The store on JetStream: a log for each slot, in eight streams of a NATS cluster.

mod claim;
mod commit;
mod fetch;
mod image;
mod ops;
pub mod orders;
mod record;
mod slot;

#[cfg(test)]
mod tests;
