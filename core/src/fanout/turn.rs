//! What one turn of a segment did, in numbers: plain integers, of which the shard makes its tally, the segment's counts and
//! what a write costs.

use std::time::Instant;

use bytes::Bytes;

use super::{Offer, Sink};
use crate::room::Counts;

/// What one turn did, in numbers.
#[derive(Debug, Clone, Default)]
pub struct TurnTally {
    /// Members visited.
    pub visited: usize,
    /// Of those, members that a frame was offered to.
    pub offered: usize,
    /// Batches this turn's pass began with: the home may cut as many more.
    pub taken: usize,
    /// Level frames taken by members.
    pub level: u64,
    /// Refresh frames taken by members.
    pub refreshed: u64,
    /// Frames taken by members that did not acknowledge in time.
    pub carried: u64,
    /// Refresh frames after which their member still was not level with the reliable stream.
    pub catching_up: u64,
    /// Messages told to members as skipped.
    pub messages_skipped: u64,
    /// Frames a member could not take whole at once.
    pub queued: u64,
    /// Frames that members which missed an earlier one were not sent.
    pub skipped: u64,
    /// When the oldest message of each batch whose pass ended was accepted.
    pub written: Vec<Instant>,
}

impl TurnTally {
    /// What the segment counts of it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let written = self.level + self.refreshed + self.carried;
        Counts { written, queued: self.queued, skipped: self.skipped, acked: 0 }
    }

    /// Offers a frame to one member. Whether it was taken, if not at once.
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
