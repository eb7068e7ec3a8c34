//! What a room is told, and what follows from it: the values that cross its boundary.

use std::sync::Arc;
use std::time::Instant;

use super::account::Missed;
use super::counters::CounterChange;
use super::history::Past;
use super::id::{Encoding, Epoch, Seen, Seq, TypeName};
use super::message::{Message, Published};
use super::pace::RoomSettings;

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
    /// A connection wants to become a member. Answered by [`Output::Welcomed`].
    Join(Join),
    /// Members have left a segment.
    Left {
        /// Where.
        shard: usize,
        /// How many, by encoding.
        left: Census,
    },
    /// A segment has taken frames into a pass, or will never get them.
    Taken {
        /// Which segment.
        shard: usize,
        /// How many batches.
        batches: usize,
    },
    /// A segment has members that hold everything up to `since` and missed what followed. Answered by
    /// [`Output::Refreshed`].
    Refresh {
        /// Which segment.
        shard: usize,
        /// Of those members.
        encoding: Encoding,
        /// The last seq they hold.
        since: Seq,
    },
    /// `PUT` by a publisher.
    Configure(RoomSettings),
    /// The moment `poll_deadline` named has come.
    Due,
    /// Everything that waits has to leave: the node is draining.
    Flush,
    /// The publisher closes the room.
    Close,
}

/// A connection's wish to become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// The shard that owns the connection.
    pub shard: usize,
    /// The connection there; comes back with the answer.
    pub connection: u64,
    /// How its frames are spelt.
    pub encoding: Encoding,
    /// The last batch it has seen.
    pub seen: Option<Seen>,
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
    },
    /// A member was taken in; it holds everything up to the room's seq.
    Welcomed(Welcomed),
    /// What the members of a segment that hold `since` have missed.
    Refreshed {
        /// Which segment.
        shard: usize,
        /// Of those members.
        encoding: Encoding,
        /// As it came.
        since: Seq,
        /// It takes them to this.
        to: Seq,
        /// `None`: further back than the account reaches; those members have to come back afresh.
        refresh: Option<Refresh>,
    },
    /// The room is closed: every segment is told, and the room dropped.
    Closed,
    /// Nobody has used the room for long: it may be dropped.
    Idle,
}

/// A member that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcomed {
    /// As it came.
    pub join: Join,
    /// The history it gets is newer than this.
    pub history_after: Seq,
    /// The history continues exactly where it left off.
    pub resumed: bool,
}

/// What one cut gave up.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its number.
    pub seq: Seq,
    /// In room order.
    pub messages: Vec<Arc<Message>>,
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

    /// Those have left.
    pub fn subtract(&mut self, left: Self) {
        for (members, left) in self.0.iter_mut().zip(left.0) {
            *members = members.checked_sub(left).expect("only members leave");
        }
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
