//! The tally of one turn of a segment, in plain integers.
//!
//! The shard derives three things from the tally: metrics, the counts of the segment, and the cost of a
//! write.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Offer, Sink};
use crate::room::Counts;

/// Tally of one turn of a segment.
#[derive(Debug, Clone, Default)]
pub struct TurnTally {
    /// Members visited.
    pub visited: usize,
    /// Members with an offered frame, a part of `visited`: the divisor of the write cost.
    pub offered: usize,
    /// Batches that entered a pass in this turn. The home may cut as many more.
    pub taken: usize,
    /// Level frames taken by members.
    pub level: u64,
    /// Refresh frames taken by members.
    pub refreshed: u64,
    /// Carries taken by members.
    pub carried: u64,
    /// Refresh frames with a rest to follow: the member still lacks reliable messages or latest values.
    pub catching_up: u64,
    /// Messages told as skipped, summed over members.
    pub messages_skipped: u64,
    /// Frames taken with [`Offer::Queued`]: the socket did not take the whole offer at once.
    pub queued: u64,
    /// Batches not sent to members: refused, or after a missed batch.
    pub skipped: u64,
    /// Acceptance of the oldest message, for each batch whose pass ended in this turn.
    pub written: Vec<Instant>,
    /// Members brought up to date by a refresh.
    pub caught_up: Vec<CaughtUp>,
    /// Connections that took a carry.
    pub carried_to: Vec<u32>,
}

/// A member brought up to date by a refresh.
#[derive(Debug, Clone)]
pub struct CaughtUp {
    /// Connection of the member.
    pub connection: u32,
    /// Pieces of history to follow, newest first.
    pub history: Arc<[Bytes]>,
}

impl TurnTally {
    /// Part of the tally that `GET /v1/rooms/{room}` shows for the segment.
    pub fn counts(&self) -> Counts {
        let written = self.level + self.refreshed + self.carried;
        Counts { written, queued: self.queued, skipped: self.skipped, acked: 0 }
    }

    /// Offers a frame to one member. True if the socket or the outbox took the frame.
    pub(super) fn offer<S: Sink>(
        &mut self,
        connection: u32,
        frame: &Bytes,
        sink: &mut S,
        now: Instant,
    ) -> bool {
        let offer = sink.offer(connection, std::slice::from_ref(frame), now);
        self.offered += 1;
        self.queued += u64::from(offer == Offer::Queued);
        offer == Offer::Written || offer == Offer::Queued
    }
}
