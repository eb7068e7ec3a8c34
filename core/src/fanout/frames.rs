//! Frames from a room's home to its segments: level frames for everybody, refreshes for members that missed
//! batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::room::id::{Encoding, Seq};
use crate::room::{LatestPlace, Reach};

/// Level frames of one batch, one for each encoding in use. A level frame takes a member from `seq - 1` to
/// `seq`.
#[derive(Debug)]
pub struct Level {
    /// Number of the batch.
    pub seq: Seq,
    /// Frame by encoding. Empty for an encoding without members.
    pub frames: [Bytes; Encoding::ALL.len()],
    /// Part of the reliable stream in the batch. Empty (`after` = `through`) for a batch without reliable
    /// messages.
    pub reach: Reach,
    /// Time over which devices spread the acknowledgements of the batch.
    pub ack_within: Duration,
    /// Acceptance of the oldest message in the batch.
    pub oldest: Instant,
    /// Messages that were accepted and left out, as the frame tells each member.
    pub skipped: u64,
}

/// Place of a member after a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// The member holds every batch up to this seq, or was told of the missed messages.
    pub seq: Seq,
    /// Last offset of the reliable stream sent to the member.
    pub sent: u64,
    /// Last offset that had left in batches. A member with `sent` < `head` goes on catching up.
    pub head: u64,
    /// Place of the member among the latest values. `Some`: the member goes on catching up.
    pub latest: Option<LatestPlace>,
    /// Time over which devices spread the acknowledgements of the refresh.
    pub ack_within: Duration,
    /// Messages told as skipped in the refresh.
    pub skipped: u64,
}

impl Refreshed {
    /// True if nothing is left for a further refresh.
    pub(super) fn is_all(&self) -> bool {
        self.sent >= self.head && self.latest.is_none()
    }
}

/// A refresh from the home.
#[derive(Debug, Clone)]
pub struct RefreshFrame {
    /// Composed frame for all members of one state: same encoding, last seq, sent offset and place among the latest
    /// values.
    pub frame: Bytes,
    /// Place of those members after the frame.
    pub to: Refreshed,
    /// Pieces of history to follow the frame, newest first: for slow and unproven devices.
    pub history: Arc<[Bytes]>,
}
