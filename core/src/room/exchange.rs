//! The values at a room's boundary: inputs, outputs, and their content.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::account::Missed;
use super::counters::CounterChange;
use super::history::Past;
use super::id::{Cursor, Encoding, Epoch, Seen, Seq, TypeName};
use super::ladder::Step;
use super::latest::LatestPlace;
use super::message::{Message, Published, Unavailable};
use super::pace::{RoomSettings, STRETCH_NONE};
use super::receipt::{Acks, HomeReceipt};
use super::segments::Roll;
use super::stored::{Asked, Page, Stored};
use super::view::{ClosedView, RecallView, StreamRefusal};
use crate::limits::WRITE_COST_FIRST;

/// An input of a room.
#[derive(Debug)]
pub enum Input {
    /// A publish whose messages are all valid. Answered by [`Output::Published`].
    Publish {
        /// The caller's number, repeated in the answer.
        ticket: u64,
        /// The messages, in the publisher's order.
        messages: Vec<Message>,
    },
    /// The words of a segment of the room.
    Segment {
        /// The place of the segment: the index of its shard, or the place of a node (`cluster::node_place`).
        shard: usize,
        /// The segment's words.
        said: SegmentSaid,
    },
    /// An ask about the reliable stream. Answered by [`Output::Told`].
    Ask {
        /// The caller's number, repeated in the answer.
        ticket: u64,
        /// The ask.
        ask: Ask,
    },
    /// The store's answer to [`Output::Load`].
    Loaded {
        /// The life named by the request.
        life: u64,
        /// `None`: nothing is stored of the room.
        stored: Option<Stored>,
    },
    /// The store's answer to [`Output::Append`]: everything up to `through` is synced.
    Durable {
        /// The life named by the request.
        life: u64,
        /// The last synced offset.
        through: u64,
    },
    /// The store's answer to [`Output::Page`].
    Paged {
        /// The life named by the request.
        life: u64,
        /// The offset named by the request.
        after: u64,
        /// The messages found by the store.
        page: Page,
    },
    /// The store's answer to [`Output::Forget`]: nothing of the room is stored any more.
    Forgotten {
        /// The life named by the request.
        life: u64,
        /// True: something was stored.
        existed: bool,
    },
    /// The store's answer to a failed request.
    StoreFailed {
        /// The life named by the request.
        life: u64,
        /// The sort of request.
        asked: Asked,
        /// The reason told to publishers.
        reason: Unavailable,
    },
    /// `PUT` by a publisher.
    Configure(RoomSettings),
    /// The ladder's step in force for the room from now on.
    Degrade(Step),
    /// The moment named by `poll_deadline` has come.
    Due,
    /// The node is draining: nothing may wait any longer.
    Flush,
    /// All members of a place are gone, and none of them will be heard of: the link to their node has ended. They
    /// count as departures without an acknowledgement.
    PlaceLost {
        /// The place.
        place: usize,
    },
    /// A batch was left out on its way to a place, which hears of a gap.
    Lapsed {
        /// The place.
        place: usize,
        /// The batch.
        seq: Seq,
    },
    /// The right to order is in doubt (true), or certain again: a frozen room cuts nothing, and refuses
    /// publishes.
    Freeze(bool),
    /// The room is handed over (true), or stays here after all: a paused room cuts nothing, and refuses publishes.
    Pause(bool),
    /// Another node has become the home. Publishers and asks under way are answered, and the room ends without a
    /// word to its members about an end. Followed by [`Output::Lost`].
    Lost,
    /// The publisher closes the room.
    Close,
}

/// The words of a segment to the home of the room. The control lane brings the words, and the room takes them
/// as an input.
#[derive(Debug)]
pub enum SegmentSaid {
    /// A connection wants to become a member. Answered by [`Output::Welcomed`].
    Join(Join),
    /// A member has left.
    Left(Departure),
    /// A segment of this node took batches into a pass, or dropped them.
    Taken {
        /// Number of batches.
        batches: usize,
        /// The cost of writing to this segment; `None`: the batches were not written.
        cost: Option<WriteCost>,
    },
    /// The segments of another node took all batches up to `seq` into passes, or dropped them.
    TakenThrough {
        /// The last of these batches.
        seq: Seq,
        /// The cost of writing to the members there; `None`: the batches were not written.
        cost: Option<WriteCost>,
    },
    /// Counts of a segment at its end, or at its change to another run of the room.
    Counted(Counts),
    /// Members missed batches. Answered by [`Output::Refreshed`].
    Refresh(RefreshWant),
    /// Members did not acknowledge in time. Answered by [`Output::Carried`].
    Carry(CarryWant),
    /// Acknowledgements no longer kept by the segment.
    Acked {
        /// The epoch of the acknowledgements.
        epoch: Option<Epoch>,
        /// Offsets, each with the acknowledgements of the message.
        acks: Vec<(u64, Acks)>,
    },
    /// A member acknowledges messages older than the segment.
    AckedEarly {
        /// The epoch of the messages.
        epoch: Option<Epoch>,
        /// The acknowledgement.
        early: EarlyAck,
    },
    /// All members have left the segment, and join again. Earlier words of the segment are about its former life.
    Moved,
    /// The answer of a node to the pause of the room, or that its members go on with its next home. The home's shard
    /// takes it.
    Paused {
        /// The number of the attempt to hand over; 0: the members go on.
        attempt: u64,
    },
    /// The members of a segment on the node of the home, behind the earlier words of the segment. The answer to the
    /// pause of the room.
    Enrolled {
        /// The number of the attempt to hand over.
        attempt: u64,
        /// `None`: too many to be told.
        roll: Option<Box<Roll>>,
    },
}

/// An acknowledgement of messages older than the member's segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyAck {
    /// The acknowledged messages.
    pub reach: Reach,
    /// The member counts by the name of its device.
    pub is_named: bool,
}

/// The state of members with missed batches. All members of the same state share a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefreshWant {
    /// Encoding of the members' frames.
    pub encoding: Encoding,
    /// The last seq of the members.
    pub since: Seq,
    /// The last offset sent to the members.
    pub sent: u64,
    /// The devices are slow or unproven: the refresh is small, and recent history follows in pieces.
    pub small: bool,
    /// The members' place among the latest values; `None`: the members know all as of `since`.
    pub latest: Option<LatestPlace>,
}

/// The state of members late to acknowledge. All members of the same state share a carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CarryWant {
    /// Encoding of the members' frames.
    pub encoding: Encoding,
    /// The messages to carry.
    pub reach: Reach,
}

impl Input {
    pub(super) fn is_join(&self) -> bool {
        matches!(self, Self::Segment { said: SegmentSaid::Join(_), .. })
    }
}

/// The cost of writing to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCost {
    /// Processor time of a pass for a member, smoothed over some passes.
    pub per_member: Duration,
    /// The stretch of the segment's shard, in thousandths; at least 1000.
    pub stretch_permille: u32,
}

impl WriteCost {
    /// Processor time of a pass over these members.
    pub fn pass(&self, census: Census) -> Duration {
        self.per_member.saturating_mul(u32::try_from(census.members()).unwrap_or(u32::MAX))
    }
}

impl Default for WriteCost {
    /// The cost presumed before anything was measured.
    fn default() -> Self {
        Self { per_member: WRITE_COST_FIRST, stretch_permille: STRETCH_NONE }
    }
}

/// The counts of a segment, apart from the members themselves. Each segment counts on its own shard, so no pass
/// touches a shared number. A reader adds the segments up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Frames taken by members' sockets or outboxes.
    pub written: u64,
    /// Written frames kept by an outbox, in whole or in part: the socket took less.
    pub queued: u64,
    /// Batches withheld from members behind.
    pub skipped: u64,
    /// Acknowledgements taken by the segment.
    pub acked: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        // Another node may count as it likes.
        self.written = self.written.saturating_add(other.written);
        self.queued = self.queued.saturating_add(other.queued);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.acked = self.acked.saturating_add(other.acked);
    }
}

/// A connection's wish to become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// The index of the connection's shard on its node, repeated in the answer.
    pub shard: u16,
    /// The number of the connection on its shard, repeated in the answer.
    pub connection: u64,
    /// The number of the join among the connection's joins, repeated in the answer.
    pub join: u32,
    /// The encoding of the connection's frames.
    pub encoding: Encoding,
    /// The last batch seen by the device.
    pub seen: Option<Seen>,
    /// The cursor of the device.
    pub cursor: Option<Cursor>,
    /// A hash of the device's name; 0: the device gave none.
    pub device: u64,
    /// The connection was a member until the room moved: bounds for newcomers do not hold for it.
    pub moved: bool,
}

/// A departure of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The encoding of the member's frames.
    pub encoding: Encoding,
    /// The epoch known to the member.
    pub epoch: Option<Epoch>,
    /// The last offset acknowledged by the member.
    pub acked: u64,
    /// The offset behind which receipts count the member.
    pub counts_from: u64,
    /// A hash of the device's name; 0: the member counts without a name.
    pub device: u64,
}

/// A part of the reliable stream: (after, through].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reach {
    /// The last offset before the part.
    pub after: u64,
    /// The last offset of the part.
    pub through: u64,
}

/// An ask about the reliable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Give the receipt of a message.
    Receipt {
        /// The offset of the message.
        offset: u64,
    },
    /// Take a message back.
    Recall {
        /// The offset of the message.
        offset: u64,
    },
    /// Close the room, and forget its stream. The next life of the room begins another epoch.
    EndStream,
    /// Give the living messages behind a cursor.
    Pull {
        /// The cursor; `None`: from the beginning.
        after: Option<Cursor>,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The home's part of a receipt. The caller adds the parts of the segments.
    Receipt(Result<Box<HomeReceipt>, StreamRefusal>),
    /// The recall is durable.
    Recalled(Result<RecallView, StreamRefusal>),
    /// The stream is gone, and its messages with it.
    StreamEnded(Result<ClosedView, StreamRefusal>),
    /// The pulled messages, and the reason why the cursor was not honoured.
    Pulled(Result<(Opening, Option<&'static str>), StreamRefusal>),
}

impl Told {
    /// The refusal of an ask.
    #[must_use]
    pub fn refused(ask: Ask, refusal: StreamRefusal) -> Self {
        match ask {
            Ask::Receipt { .. } => Self::Receipt(Err(refusal)),
            Ask::Recall { .. } => Self::Recalled(Err(refusal)),
            Ask::Pull { .. } => Self::Pulled(Err(refusal)),
            Ask::EndStream => Self::StreamEnded(Err(refusal)),
        }
    }
}

/// An output of a room. Outputs follow from inputs.
#[derive(Debug)]
pub enum Output {
    /// The answer to a publish.
    Published {
        /// The ticket of the publish.
        ticket: u64,
        /// The verdict on each message, or the reason why none was taken.
        published: Published,
    },
    /// A batch for every segment of the room.
    Batch {
        /// The batch.
        batch: Batch,
        /// The shards with members at the cut, each with its count.
        segments: Vec<(usize, Census)>,
        /// The last offset sent, this batch included.
        sent: u64,
    },
    /// The room took a member in. The welcome holds everything up to the room's seq.
    Welcomed(Welcomed),
    /// The refresh of members with missed batches.
    Refreshed {
        /// The asking shard.
        shard: usize,
        /// The state of the members, as the segment asked.
        want: RefreshWant,
        /// The seq of the refresh.
        to: Seq,
        /// The last offset sent in batches at that seq.
        head: u64,
        /// The refresh; `None`: the account reaches back less far, and the members have to come back afresh.
        refresh: Option<Refresh>,
    },
    /// The carry to members late to acknowledge.
    Carried {
        /// The asking shard.
        shard: usize,
        /// The state of the members, as the segment asked.
        want: CarryWant,
        /// The room's seq, which the frame repeats.
        seq: Seq,
        /// The living messages; `None` if none is left.
        carried: Option<Carried>,
        /// The largest offset at or before which nothing is alive.
        floor: u64,
    },
    /// The answer to an ask.
    Told {
        /// The ticket of the ask.
        ticket: u64,
        /// The answer.
        told: Told,
    },
    /// A request to the store: give everything stored of the room.
    Load {
        /// The life of the stream, repeated in the answer.
        life: u64,
        /// The messages behind this offset are read whole. Of older messages the tail is.
        whole_after: u64,
    },
    /// A request to the store: keep `messages`.
    Append {
        /// The life of the stream, repeated in the answer.
        life: u64,
        /// The epoch of the stream.
        epoch: Epoch,
        /// The last durable offset.
        durable: u64,
        /// The moment of the messages' acceptance.
        accepted: Instant,
        /// The messages, in order of offset and without a gap.
        messages: Vec<Arc<Message>>,
    },
    /// A request to the store: read messages back.
    Page {
        /// The life of the stream, repeated in the answer.
        life: u64,
        /// The offset behind which to read.
        after: u64,
        /// Most bytes to read; the first message is read in any case.
        bytes_max: usize,
    },
    /// A request to the store: forget everything of the room.
    Forget {
        /// The life of the stream, repeated in the answer.
        life: u64,
    },
    /// A place took no batch into a pass for long, and the room awaits nothing of the place.
    Gap {
        /// The place.
        place: usize,
        /// The newest batch that was awaited.
        seq: Seq,
    },
    /// Members know a former reliable stream, or none. All members have to come back.
    StreamChanged,
    /// A join that the room has not taken, and never will: another node has become the home.
    GaveBack {
        /// The place of the asking segment.
        place: usize,
        /// The join.
        join: Join,
    },
    /// The room came by a hand-over, and has its stream: other nodes with members are told.
    Adopted,
    /// Another node has become the home. The shard has the members join again, and drops the room.
    Lost,
    /// The room is closed. The shard tells every segment, and drops the room.
    Closed,
    /// The room is not used. The shard drops the room.
    Idle,
}

/// A member taken in by the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcomed {
    /// The index of the connection's shard.
    pub shard: usize,
    /// The answered join.
    pub join: Join,
    /// The seq behind which the member's history begins.
    pub history_after: Seq,
    /// The history continues without a gap at the last batch seen by the device.
    pub resumed: bool,
    /// The member's place in the reliable stream; `None` while the stream is not known.
    pub stands: Option<Stands>,
}

/// The place of a joining member in the reliable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// The offset up to which the member has everything.
    pub after: u64,
    /// The reason why the cursor was not honoured.
    pub reset: Option<&'static str>,
    /// The offset behind which receipts count the member.
    pub counts_from: u64,
    /// A hash of the device's name; 0: receipts count the member without a name.
    pub device: u64,
}

/// A batch: the messages of one cut, and its effects.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The batch's number.
    pub seq: Seq,
    /// The messages, in room order.
    pub messages: Vec<Arc<Message>>,
    /// Accepted messages dropped since the batch before, by type.
    pub skipped: Vec<(TypeName, u64)>,
    /// Messages merged away, by type.
    pub merged: Vec<(TypeName, u64)>,
    /// The changes of counters.
    pub counters: Vec<CounterChange>,
    /// The time at which the oldest message of the batch was accepted.
    pub oldest: Instant,
    /// The part of the reliable stream among the messages, if any.
    pub span: Option<Span>,
}

/// A frame's part of the reliable stream: the frame holds every living message in (after, through]. A device
/// with a cursor at `after` or beyond applies the new messages and moves to `through`. Any other device
/// pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The last offset before the part.
    pub after: u64,
    /// The cursor's offset once a device has applied the frame.
    pub through: u64,
    /// The time over which devices spread their acknowledgements.
    pub ack_within_ms: u32,
}

/// Reliable messages in a frame other than a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The messages' part of the stream.
    pub span: Span,
    /// The living messages of the span, in order of offset.
    pub messages: Vec<Arc<Message>>,
}

/// The reliable stream for a joining member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The last offset sent to members.
    pub offset: u64,
    /// The messages new to the member, as far as the welcome has room. Refreshes bring the rest.
    pub carried: Carried,
}

/// A refresh: the content of a frame at the room's seq for members with missed batches.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// Counts of what the missed batches held.
    pub missed: Missed,
    /// The latest values in the missed batches, and those left by earlier frames, as far as the frame has room.
    pub latest: Vec<Arc<Message>>,
    /// The members' place among the latest values behind the frame; `None`: no value is left.
    pub latest_rest: Option<LatestPlace>,
    /// The changes of counters in the missed batches.
    pub counters: Vec<CounterChange>,
    /// The reliable messages not sent to the members yet, as far as a frame has room.
    pub carried: Option<Carried>,
    /// The newest history of the missed batches, oldest first, to follow in pieces. Empty unless the refresh is
    /// small.
    pub history: Vec<Past>,
}

/// The room for a joining member, at one seq.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The seq of everything in the snapshot.
    pub seq: Seq,
    /// The newest history with room in a welcome, oldest first.
    pub history: Vec<Past>,
    /// The welcome has no room for the oldest part of the history.
    pub cut_short: bool,
    /// The latest value of each key, as far as the welcome has room. Refreshes bring the rest.
    pub latest: Vec<Arc<Message>>,
    /// The member's place among the latest values behind the welcome; `None`: no value is left.
    pub latest_rest: Option<LatestPlace>,
    /// Totals of counters, exact.
    pub counters: Vec<(TypeName, u64)>,
    /// The reliable stream; `None` while unknown, and the device keeps its cursor.
    pub stream: Option<Opening>,
}

/// A count of members by encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census(pub [u32; Encoding::ALL.len()]);

impl Census {
    /// Adds a member.
    pub fn add(&mut self, encoding: Encoding) {
        self.0[encoding as usize] += 1;
    }

    /// Removes a member. Returns false if there is none of this encoding.
    #[must_use]
    pub fn remove(&mut self, encoding: Encoding) -> bool {
        let members = &mut self.0[encoding as usize];
        let is_one = *members > 0;
        *members = members.saturating_sub(1);
        is_one
    }

    /// The members of all encodings.
    pub fn members(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// Returns true if frames of this encoding are needed.
    pub fn uses(&self, encoding: Encoding) -> bool {
        self.0[encoding as usize] > 0
    }
}
