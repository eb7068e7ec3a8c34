//! The counts of a shard between two reports: plain integers of a single thread, so counting costs an
//! addition. The shard's loop adds the counts to the metrics once a turn.

use std::time::{Duration, Instant};

use roomcast_core::room::tally::RoomTally;
use roomcast_core::wire::close::CloseReason;

/// The counts of a shard since the last report.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The counts of the shard's homes.
    pub homes: HomesTally,
    /// Level frames taken by a device's socket or outbox.
    pub frames_level: u64,
    /// Welcomes and other composed frames taken by a device's socket or outbox.
    pub frames_composed: u64,
    /// Refresh frames taken by a device's socket or outbox.
    pub frames_refresh: u64,
    /// Carry frames, for devices that did not acknowledge in time.
    pub frames_carried: u64,
    /// Refresh frames after which the device was still catching up with the reliable stream.
    pub frames_catching_up: u64,
    /// Members of moved rooms that were welcomed again.
    pub rewelcomes: u64,
    /// Acknowledgements taken.
    pub acks: u64,
    /// Frames not sent because the device was behind.
    pub frames_skipped: u64,
    /// Frames taken by a socket in part or not at all. The device is waiting from then on.
    pub frames_queued: u64,
    /// Messages told to devices as skipped.
    pub messages_skipped: u64,
    /// Acknowledgements of an offset not sent to the device.
    pub acks_ignored: u64,
    /// Connections closed, by the row of the close table.
    pub closed: [u64; CloseReason::ALL.len()],
    /// For each batch whose pass ended: the acceptance time of the oldest message.
    pub written: Vec<Instant>,
}

/// The counts of a shard's homes since the last report.
#[derive(Debug, Clone, Default)]
pub struct HomesTally {
    /// The counts of the shard's rooms.
    pub rooms: RoomTally,
    /// Welcomes encoded. Devices with the same encoding and state share one until the room's next batch.
    pub welcomes_encoded: u64,
    /// Times a frame lane was full, or another node took no batch into a pass for long.
    pub lane_full: u64,
    /// Idle rooms forgotten.
    pub rooms_forgotten: u64,
    /// Words about kept rooms that were left out, and kept rooms that were forgotten for their bound.
    pub kept_left_out: u64,
    /// Promotions: times a room's further members were to be placed on more shards.
    pub rooms_promoted: u64,
    /// Demotions: times a room's further members were to be placed on fewer shards.
    pub rooms_demoted: u64,
}

/// The counts of links to other nodes since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkTally {
    /// Bytes of messages sent.
    pub(crate) bytes: u64,
    /// Entries sent.
    pub(crate) frames: u64,
    /// Batches left out.
    pub(crate) lapsed: u64,
    /// Messages sent again.
    pub(crate) repeated: u64,
    /// Begins anew.
    pub(crate) resets: u64,
    /// Messages and words dropped: of a former life, or unreadable.
    pub(crate) stale: u64,
}

/// The end of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOverOutcome {
    /// The next home goes on.
    Given,
    /// It was given up, and the rooms go on here.
    Kept,
    /// Another node has claimed the slot.
    Lost,
}

impl HandOverOutcome {
    /// All outcomes, in order.
    pub(crate) const ALL: [Self; 3] = [Self::Given, Self::Kept, Self::Lost];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Kept => "kept",
            Self::Lost => "lost",
        }
    }
}

/// A report of the cluster's thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClusterReport<'a> {
    /// The counts of a link.
    Link {
        /// The name of the node at the other end.
        peer: &'a str,
        /// The counts since the last report.
        tally: LinkTally,
        /// Age of the oldest entry without an acknowledgement.
        age: Duration,
    },
    /// The node's own heartbeat.
    Echo {
        /// Its age, as it came back from NATS.
        age: Duration,
    },
    /// A hand-over of this node has ended.
    HandOver {
        /// Its end.
        outcome: HandOverOutcome,
    },
    /// A slot of a dead node is held here.
    Takeover {
        /// Time since the last heartbeat of that node.
        took: Duration,
    },
}

/// The holdings of a shard at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Connections placed on the shard.
    pub connections: u64,
    /// Members: places of the connections in rooms.
    pub members: u64,
    /// Members without an acknowledgement that was due.
    pub overdue: u64,
    /// Rooms with this shard as their home.
    pub rooms: u64,
    /// Connections whose outbox is not empty.
    pub waiting: u64,
    /// Connections that are behind.
    pub behind: u64,
    /// Messages gathered in the shard's rooms.
    pub gathered: u64,
    /// Reliable messages of the shard's rooms on their way to the store.
    pub not_durable: u64,
    /// Bytes of rooms that the shard keeps for takeovers.
    pub kept_bytes: u64,
    /// Processor time of the shard's thread over the last second, in thousandths.
    pub busy_permille: u64,
    /// Strain: the share of passes in the shard's time, smoothed, in thousandths.
    pub passes_permille: u64,
    /// Stretch: the factor on the windows of the shard's rooms, in thousandths. 1000: no widening.
    pub stretch_permille: u64,
    /// The gather window of the most costly room to keep passes within `flush.cpu_share`.
    pub window_needed: Duration,
}
