//! What a room is told, and what follows from it: the values that cross its boundary.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::account::Missed;
use super::counters::CounterChange;
use super::history::Past;
use super::id::{Cursor, Encoding, Epoch, Seen, Seq, TypeName};
use super::ladder::Step;
use super::message::{Message, Published, Unavailable};
use super::pace::{RoomSettings, STRETCH_NONE};
use super::receipt::Acks;
use super::stored::{Asked, Page, Stored};
use super::view::{RecallView, ReceiptView, StreamRefusal};
use crate::limits::WRITE_COST_FIRST;

/// What a room is told.
#[derive(Debug)]
pub enum Input {
    /// A publish whose messages are all valid. Answered by [`Output::Published`].
    Publish {
        /// Comes back with the answer.
        ticket: u64,
        /// In the publisher's order.
        messages: Vec<Message>,
    },
    /// A segment of the room speaks.
    Segment {
        /// The shard that holds the segment.
        shard: usize,
        /// Its words.
        said: SegmentSaid,
    },
    /// Something is asked of the reliable stream. Answered by [`Output::Told`].
    Ask {
        /// Comes back with the answer.
        ticket: u64,
        /// What.
        ask: Ask,
    },
    /// The store's answer to [`Output::Load`].
    Loaded {
        /// As asked.
        life: u64,
        /// `None`: nothing is stored of the room.
        stored: Option<Stored>,
    },
    /// The store's answer to [`Output::Append`]: everything up to `through` is synced.
    Durable {
        /// As asked.
        life: u64,
        /// The last offset.
        through: u64,
    },
    /// The store's answer to [`Output::Page`].
    Paged {
        /// As asked.
        life: u64,
        /// As asked.
        after: u64,
        /// What was found.
        page: Page,
    },
    /// The store did not do what it was asked.
    StoreFailed {
        /// As asked.
        life: u64,
        /// What was asked.
        asked: Asked,
        /// Why, in the words publishers hear.
        reason: Unavailable,
    },
    /// `PUT` by a publisher.
    Configure(RoomSettings),
    /// The step of the ladder that is in force for it from now on.
    Degrade(Step),
    /// The moment `poll_deadline` named has come.
    Due,
    /// Everything that waits has to leave: the node is draining.
    Flush,
    /// The publisher closes the room.
    Close,
}

/// The words of a segment to the home of its room. They travel on the control lane, and are an input of the room.
#[derive(Debug)]
pub enum SegmentSaid {
    /// A connection wants to become a member. Answered by [`Output::Welcomed`].
    Join(Join),
    /// A member has left.
    Left(Departure),
    /// Batches were taken into a pass, or will never get into one.
    Taken {
        /// Number of batches.
        batches: usize,
        /// The cost of writing to this segment; `None`: the batches were not written.
        cost: Option<WriteCost>,
    },
    /// Counts of a segment that ends, or that goes over to another life of the room.
    Counted(Counts),
    /// Members missed batches. Answered by [`Output::Refreshed`].
    Refresh(RefreshWant),
    /// Members did not acknowledge in time. Answered by [`Output::Carried`].
    Carry(CarryWant),
    /// Acknowledgements that the segment does not keep any more.
    Acked {
        /// The life of the stream that the acknowledgements are of.
        epoch: Option<Epoch>,
        /// Pairs of an offset and its acknowledgements.
        acks: Vec<(u64, Acks)>,
    },
    /// A member has acknowledged messages that were sent before its segment existed.
    AckedEarly {
        /// The life of the stream that the messages are of.
        epoch: Option<Epoch>,
        /// The acknowledged messages.
        reach: Reach,
    },
}

/// The state of members that missed batches: all members of one state share a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefreshWant {
    /// Encoding of the members' frames.
    pub encoding: Encoding,
    /// The last seq that the members hold.
    pub since: Seq,
    /// The last offset of the reliable stream that was sent to the members.
    pub sent: u64,
}

/// The state of members that did not acknowledge in time: all members of one state share a carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CarryWant {
    /// Encoding of the members' frames.
    pub encoding: Encoding,
    /// The messages to carry.
    pub reach: Reach,
}

impl Input {
    /// Whether a connection wants to become a member.
    pub(super) fn is_join(&self) -> bool {
        matches!(self, Self::Segment { said: SegmentSaid::Join(_), .. })
    }
}

/// What writing costs a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCost {
    /// Processor time for one member and pass, smoothed over some passes.
    pub per_member: Duration,
    /// By how much its shard has windows widened, in thousandths; at least 1000.
    pub stretch_permille: u32,
}

impl WriteCost {
    /// Processor time of a pass over so many members.
    #[must_use]
    pub fn pass(&self, census: Census) -> Duration {
        self.per_member.saturating_mul(u32::try_from(census.members()).unwrap_or(u32::MAX))
    }
}

impl Default for WriteCost {
    /// Before anything was measured.
    fn default() -> Self {
        Self { per_member: WRITE_COST_FIRST, stretch_permille: STRETCH_NONE }
    }
}

/// What a segment counts of its members, apart from them themselves. Kept where it happens and added up when somebody
/// looks, as a striped counter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Frames that a member's socket or outbox took.
    pub written: u64,
    /// Of those, frames that went to the socket in part or not at all at first.
    pub queued: u64,
    /// Batches that a member which was behind was not sent.
    pub skipped: u64,
    /// Acknowledgements taken.
    pub acked: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.queued += other.queued;
        self.skipped += other.skipped;
        self.acked += other.acked;
    }
}

/// A connection's wish to become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// The connection on its shard; comes back with the answer.
    pub connection: u64,
    /// Which of its joins this is; comes back with the answer.
    pub join: u32,
    /// How its frames are spelt.
    pub encoding: Encoding,
    /// The last batch it has seen.
    pub seen: Option<Seen>,
    /// Up to where it has applied reliable messages.
    pub cursor: Option<Cursor>,
    /// A hash of the device's name; 0: it gave none.
    pub device: u64,
}

/// A member that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// How its frames were spelt.
    pub encoding: Encoding,
    /// The life of the stream that it knew.
    pub epoch: Option<Epoch>,
    /// It has acknowledged everything up to this, or was not to be counted for it.
    pub acked: u64,
    /// A hash of the device's name; 0: it gave none.
    pub device: u64,
}

/// A part of the reliable stream: (after, through].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reach {
    /// Nothing at or before this offset.
    pub after: u64,
    /// Nothing behind this offset.
    pub through: u64,
}

/// What may be asked of the reliable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Who has the message with this offset.
    Receipt {
        /// Which.
        offset: u64,
    },
    /// Take the message with this offset back.
    Recall {
        /// Which.
        offset: u64,
    },
    /// What is alive behind this cursor.
    Pull {
        /// `None`: everything.
        after: Option<Cursor>,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The home's part of a receipt: what the segments counted is to be added.
    Receipt(Result<Box<ReceiptView>, StreamRefusal>, Acks),
    /// The recall is durable.
    Recalled(Result<RecallView, StreamRefusal>),
    /// What was pulled, and why the cursor was not honoured.
    Pulled(Result<(Opening, Option<&'static str>), StreamRefusal>),
}

/// What follows from an input.
#[derive(Debug)]
pub enum Output {
    /// The answer to a publish.
    Published {
        /// As it came.
        ticket: u64,
        /// What became of it.
        published: Published,
    },
    /// A batch for every segment of the room.
    Batch {
        /// What was cut.
        batch: Batch,
        /// The shards with members at that moment, and how many.
        segments: Vec<(usize, Census)>,
        /// The last offset of the reliable stream that has left with it or before.
        sent: u64,
    },
    /// A member was taken in; it holds everything up to the room's seq.
    Welcomed(Welcomed),
    /// What the members of a segment that hold `since` have missed.
    Refreshed {
        /// The shard that asked.
        shard: usize,
        /// The state it asked for.
        want: RefreshWant,
        /// It takes them to this.
        to: Seq,
        /// The last offset that had left in batches by then.
        head: u64,
        /// `None`: further back than the account reaches; those members have to come back afresh.
        refresh: Option<Refresh>,
    },
    /// What members of a segment did not acknowledge in time.
    Carried {
        /// The shard that asked.
        shard: usize,
        /// The state it asked for.
        want: CarryWant,
        /// The frame repeats this.
        seq: Seq,
        /// `None`: nothing of it is alive any more.
        carried: Option<Carried>,
        /// Nothing at or before this offset is alive.
        floor: u64,
    },
    /// The answer to an ask.
    Told {
        /// As it came.
        ticket: u64,
        /// The answer.
        told: Told,
    },
    /// Ask the store what it holds of the room.
    Load {
        /// Comes back with the answer.
        life: u64,
    },
    /// Have the store keep these.
    Append {
        /// Comes back with the answer.
        life: u64,
        /// Of the stream.
        epoch: Epoch,
        /// In order of offset, one behind the other.
        messages: Vec<Arc<Message>>,
    },
    /// Read messages back from the store.
    Page {
        /// Comes back with the answer.
        life: u64,
        /// Behind this offset.
        after: u64,
        /// As much as this, but at least one.
        bytes_max: usize,
    },
    /// What members know of the reliable stream is not so: all of them are to come back.
    StreamChanged,
    /// The room is closed: every segment is told, and the room dropped.
    Closed,
    /// Nobody has used the room for long: it may be dropped.
    Idle,
}

/// A member that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcomed {
    /// The shard that owns the connection.
    pub shard: usize,
    /// The join that this answers.
    pub join: Join,
    /// The history it gets is newer than this.
    pub history_after: Seq,
    /// The history continues exactly where it left off.
    pub resumed: bool,
    /// Where it stands in the reliable stream; `None` while that is not known.
    pub stands: Option<Stands>,
}

/// Where a member stands in the reliable stream when it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// It has everything up to this.
    pub after: u64,
    /// Why its cursor was not honoured.
    pub reset: Option<&'static str>,
    /// Receipts count it for messages behind this offset.
    pub counts_from: u64,
}

/// What one cut gave up.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its number.
    pub seq: Seq,
    /// In room order.
    pub messages: Vec<Arc<Message>>,
    /// Messages that were accepted and that nobody gets, since the batch before, by type.
    pub skipped: Vec<(TypeName, u64)>,
    /// Messages merged away, by type.
    pub merged: Vec<(TypeName, u64)>,
    /// What it does to counters.
    pub counters: Vec<CounterChange>,
    /// When the oldest message in it was accepted.
    pub oldest: Instant,
    /// The reliable messages among them, if any.
    pub span: Option<Span>,
}

/// What a frame says of the reliable stream: every message in (after, through] that is alive is in it. A device whose
/// cursor is at `after` or beyond applies what it lacks and moves to `through`; another one pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Nothing at or before this offset is told.
    pub after: u64,
    /// Where a device stands that has applied it.
    pub through: u64,
    /// The time over which devices spread their acknowledgements.
    pub ack_within_ms: u32,
}

/// Reliable messages that a frame brings beside its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// What they are of the stream.
    pub span: Span,
    /// Those of the span that are alive, in order of offset.
    pub messages: Vec<Arc<Message>>,
}

/// The reliable stream as a joining member finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The stream's life.
    pub epoch: Epoch,
    /// The last offset that was sent to members.
    pub offset: u64,
    /// What the member lacks, as far as it fits; the rest follows in refreshes.
    pub carried: Carried,
}

/// What brings a member that missed batches up to the room's seq.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// What those batches held.
    pub missed: Missed,
    /// The latest values they told.
    pub latest: Vec<Arc<Message>>,
    /// What they did to counters.
    pub counters: Vec<CounterChange>,
    /// The reliable messages that were not sent, as far as one frame holds them.
    pub carried: Option<Carried>,
}

/// The room as a joining member finds it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Everything here is as of this seq.
    pub seq: Seq,
    /// Oldest first.
    pub history: Vec<Past>,
    /// The oldest of it was left out for its size.
    pub cut_short: bool,
    /// The latest value of each key.
    pub latest: Vec<Arc<Message>>,
    /// Exact totals.
    pub counters: Vec<(TypeName, u64)>,
    /// `None`: nobody can say just now; the device keeps its cursor.
    pub stream: Option<Opening>,
}

/// A count of members by encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census(pub [u32; Encoding::ALL.len()]);

impl Census {
    /// One member of that encoding more.
    pub fn add(&mut self, encoding: Encoding) {
        self.0[encoding.index()] += 1;
    }

    /// One member of that encoding less.
    pub fn remove(&mut self, encoding: Encoding) {
        let members = &mut self.0[encoding.index()];
        *members = members.checked_sub(1).expect("only members leave");
    }

    /// Members of all encodings.
    #[must_use]
    pub fn members(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// Whether frames of this encoding are needed.
    #[must_use]
    pub fn uses(&self, encoding: Encoding) -> bool {
        self.0[encoding.index()] > 0
    }
}
