//! What travels between a room's home and its segments: batches, and what members that missed some ask for and get.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::room::Reach;
use crate::room::id::{Encoding, Seq};

/// A batch as it travels to segments: the level frame of each encoding in use. Takes a member from `seq - 1` to `seq`.
#[derive(Debug)]
pub struct Level {
    /// Number of the batch.
    pub seq: Seq,
    /// By encoding; empty where no member uses it.
    pub frames: [Bytes; Encoding::ALL.len()],
    /// What it takes members over in the reliable stream.
    pub reach: Reach,
    /// Over how long devices spread their acknowledgements of what is in it.
    pub ack_within: Duration,
    /// When its oldest message was accepted.
    pub oldest: Instant,
    /// Messages that were accepted and left out, as the frame tells each member.
    pub skipped: u64,
}

/// How far a refresh takes a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// It holds every batch up to this, or knows what it missed.
    pub seq: Seq,
    /// The last offset of the reliable stream that was sent to it.
    pub sent: u64,
    /// The last offset that had left in batches. If it is later than `sent`, the member goes on catching up.
    pub head: u64,
    /// Over how long devices spread their acknowledgements.
    pub ack_within: Duration,
    /// Messages told as skipped.
    pub skipped: u64,
}

/// A refresh as it comes from the home.
#[derive(Debug, Clone)]
pub struct RefreshFrame {
    /// Takes a member from where it asked to the room's seq.
    pub frame: Bytes,
    /// How far that is.
    pub to: Refreshed,
}
