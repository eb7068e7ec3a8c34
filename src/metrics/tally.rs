//! What a shard counted since it was last asked: plain integers, touched by one thread, so that counting costs an
//! addition. The shell moves them into the metrics once a turn.

use std::time::{Duration, Instant};

use roomcast_core::room::tally::RoomTally;
use roomcast_core::wire::close::CloseReason;

/// Counts of one shard since the last `take`.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// What its rooms counted.
    pub rooms: RoomTally,
    /// Level frames that a device's socket or outbox took.
    pub frames_level: u64,
    /// Welcomes and other composed frames that a device's socket or outbox took.
    pub frames_composed: u64,
    /// Welcomes encoded; joiners of one kind share one until the room's next batch.
    pub welcomes_encoded: u64,
    /// Refresh frames that a device's socket or outbox took.
    pub frames_refresh: u64,
    /// Frames with reliable messages again, for devices that did not acknowledge in time.
    pub frames_carried: u64,
    /// Refresh frames after which the device still was catching up with the reliable stream.
    pub frames_catching_up: u64,
    /// Acknowledgements taken.
    pub acks: u64,
    /// Frames a device that was behind was not sent.
    pub frames_skipped: u64,
    /// Frames that went to the socket in part or not at all, so that the device waits.
    pub frames_queued: u64,
    /// Messages told to devices as skipped.
    pub messages_skipped: u64,
    /// Times a frame lane was full.
    pub lane_full: u64,
    /// Acknowledgements that named nothing sent to that device.
    pub acks_ignored: u64,
    /// Rooms forgotten because they were idle.
    pub rooms_forgotten: u64,
    /// Times further members of a room were to be placed on more shards.
    pub rooms_promoted: u64,
    /// Times further members of a room were to be placed on fewer shards.
    pub rooms_demoted: u64,
    /// Connections closed, by the row of the close table.
    pub closed: [u64; CloseReason::ALL.len()],
    /// When the oldest message of each batch whose pass ended was accepted.
    pub written: Vec<Instant>,
}

/// What a shard holds right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Connections placed on it.
    pub connections: u64,
    /// Places of those in rooms.
    pub members: u64,
    /// Rooms it is the home of.
    pub rooms: u64,
    /// Connections whose outbox is not empty.
    pub waiting: u64,
    /// Connections that are behind.
    pub behind: u64,
    /// Messages gathered in its rooms.
    pub gathered: u64,
    /// Reliable messages of its rooms on their way to the store.
    pub not_durable: u64,
    /// What its thread took of the last second, in thousandths.
    pub busy_permille: u64,
    /// What passes take, smoothed, in thousandths.
    pub passes_permille: u64,
    /// By how much the windows of all its rooms are widened together, in thousandths; 1000: not at all.
    pub stretch_permille: u64,
    /// The window that its rooms would need to keep passes to their share.
    pub window_needed: Duration,
}
