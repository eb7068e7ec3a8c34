//! Writing a room's frames to its members on one shard: the outbox of what a connection is owed, and the segment
//! with its pass, and the schedule by which reliable messages are carried again. Pure: sockets are behind [`Sink`], so passes run against memory in tests and benches.

pub mod carry;
mod cursors;
mod frames;
pub mod outbox;
pub mod pass;
pub mod segment;
mod turn;

use std::time::Instant;

use bytes::Bytes;

/// What became of frames offered to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The socket took all of them.
    Written,
    /// The socket took a part; the connection is owed the rest, in order.
    Queued,
    /// The connection is behind: it took or queued the first `taken` frames and nothing of the others.
    Refused {
        /// How many frames it took or was owed before its bound.
        taken: usize,
    },
}

/// Where a pass writes to: a shard's connections, or memory.
pub trait Sink {
    /// Offers frames to a connection, to be written or owed whole and in order.
    fn offer(&mut self, connection: u32, frames: &[Bytes], now: Instant) -> Offer;

    /// Whether the connection is owed anything: a refresh waits until it has drained.
    fn is_waiting(&self, connection: u32) -> bool;
}
