//! Shards.
pub mod handle;
pub mod tally;
