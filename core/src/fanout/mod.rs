//! The fan-out of a room on one shard: segment, pass, cursors of the reliable stream, schedule of carries,
//! outbox.
//!
//! Pure: sockets are behind [`Sink`], so tests and benches run passes against memory.

mod carry;
mod cursors;
pub mod drain_rate;
mod frames;
pub mod outbox;
mod pass;
pub mod segment;
mod turn;

use std::time::Instant;

use bytes::Bytes;

/// Answer of a connection to offered frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The socket took every frame.
    Written,
    /// The socket took a part, perhaps nothing. The outbox owes the rest, in order.
    Queued,
    /// The connection is behind: the socket or the outbox took the first `taken` frames and nothing of the
    /// others.
    Refused {
        /// Frames before the bound of the outbox; fewer than were offered.
        taken: usize,
    },
}

/// Target of a pass: a shard's connections, or memory.
pub trait Sink {
    /// Offers frames to a connection. Each frame is written or owed as a whole and in order, or refused.
    fn offer(&mut self, connection: u32, frames: &[Bytes], now: Instant) -> Offer;

    /// True while the connection is owed anything: a refresh waits until the outbox has drained.
    fn is_waiting(&self, connection: u32) -> bool;

    /// True if the device takes frames of any size fast enough.
    fn is_fast(&self, connection: u32) -> bool;

    /// Bytes of level frames that a connection may be offered now, by the rate of the device. May ask the
    /// kernel, and may find the device fast. Called for members that are not level alone.
    fn room_for(&mut self, connection: u32, now: Instant) -> usize;
}
