//! The lanes between homes and residents: bounded FIFOs that are never awaited. For each ordered pair of
//! shards there is a *frame lane* (home → residents) and a *control lane* (resident → home).
//!
//! Homes and residents of a shard use no other way to each other. Their lane is a plain queue, which the
//! shard empties within its turn (`next_own` of both sides).
//!
//! A full frame lane costs a batch, never an answer: the segment hears later of the missed batch, and heals
//! by refresh. A full control lane costs nothing: entries wait on the shard that sends them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use roomcast_core::cluster::NodeKey;
use roomcast_core::fanout::segment::{Level, RefreshFrame, StreamPlace};
use roomcast_core::limits::{
    CONTROL_LANE_ENTRIES_MAX, CONTROL_WAITING_MAX, FRAME_LANE_FRAMES_MAX, NODE_WORD_JOINS_MAX,
};
use roomcast_core::named;
use roomcast_core::room::id::{Encoding, Epoch, RoomName, Run, Seq};
use roomcast_core::room::{CarryWant, Join, LatestPlace, RefreshWant, SegmentSaid};

/// An entry of a control lane: a segment speaks to the home of its room.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) room: RoomName,
    /// The life of the room, as the segment knows it; `None` for a join, which opens the room.
    pub(crate) run: Option<Run>,
    pub(crate) said: SegmentSaid,
}

/// An entry of a frame lane: a home speaks to a shard that holds members of its room.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) room: RoomName,
    /// The life of the room.
    pub(crate) run: Run,
    pub(crate) said: HomeSaid,
}

/// The words of a home to a segment of its room.
#[derive(Debug)]
pub(crate) enum HomeSaid {
    /// A batch.
    Level(Arc<Level>),
    /// The answer to a join: the connection becomes a member when its shard takes the welcome.
    Welcome(Box<Welcome>),
    /// The answer to a join the home refuses.
    Refused(JoinRefused),
    /// A branch has no home to ask. Not said between nodes.
    GaveBack(Box<Join>),
    /// The answer to [`SegmentSaid::Refresh`].
    Refresh {
        /// The state in the request.
        want: RefreshWant,
        /// `None`: the members missed more than the account reaches.
        frame: Option<Box<RefreshFrame>>,
    },
    /// The answer to [`SegmentSaid::Carry`].
    Carry {
        /// The state in the request.
        want: CarryWant,
        /// The seq the frame repeats.
        seq: Seq,
        /// `None`: nothing of the wanted reach is alive any more.
        frame: Option<Bytes>,
        /// Nothing at or before this offset is alive.
        floor: u64,
    },
    /// The members' picture of the reliable stream is wrong, so they have to come back.
    StreamChanged,
    /// Batches up to `seq` went by while the lane was full.
    Gap {
        /// The newest of those batches.
        seq: Seq,
    },
    /// The room was closed.
    Closed,
    /// Another home orders the room from now on, or will: members join again, on the same connection.
    Moved,
    /// The home hands the room over. A branch answers with [`SegmentSaid::Paused`], and a segment of the home's node
    /// with [`SegmentSaid::Enrolled`]. No segment hears the next two words.
    Pause {
        /// The number of the attempt, which the answer repeats.
        attempt: u64,
    },
    /// The home goes on: the hand-over was given up.
    Resumed,
    /// The home has the room by a hand-over, in the same run.
    Adopted {
        /// The newest batch.
        seq: Seq,
    },
}

/// The answer to a join.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    /// The member holds everything up to this batch.
    pub(crate) seq: Seq,
    /// The shard of the connection on its node.
    pub(crate) shard: u16,
    /// The connection, as the join named it.
    pub(crate) connection: u64,
    /// Number of the join.
    pub(crate) join: u32,
    /// Encoding of the member's frames.
    pub(crate) encoding: Encoding,
    /// The life of the reliable stream; `None` while the stream is unknown.
    pub(crate) epoch: Option<Epoch>,
    /// The member's place in the reliable stream.
    pub(crate) place: StreamPlace,
    /// The member's place among the latest values; `None`: the frame has all of them.
    pub(crate) latest: Option<LatestPlace>,
    /// The welcome frame.
    pub(crate) frame: Bytes,
    /// Older history, to follow in pieces: the newest first.
    pub(crate) pieces: Arc<[Bytes]>,
    /// Further members with the same welcome, between nodes. No segment hears of them: its connections are welcomed
    /// one by one. At most `NODE_WORD_JOINS_MAX - 1`.
    pub(crate) also: Vec<AlsoWelcomed>,
}

/// A further member of a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlsoWelcomed {
    /// The shard of the connection on its node.
    pub(crate) shard: u16,
    /// The connection, as the join named it.
    pub(crate) connection: u64,
    /// Number of the join.
    pub(crate) join: u32,
    /// The offset behind which receipts count the member.
    pub(crate) counts_from: u64,
    /// A hash of the device's name; 0: receipts count the member without a name.
    pub(crate) device: u64,
}

impl Welcome {
    /// True for a welcome of the same room that has the same bytes, if the members of both fit into a word.
    pub(super) fn may_absorb(&self, other: &Self) -> bool {
        let of_all = |place: StreamPlace| StreamPlace { counts_from: 0, device: 0, ..place };
        self.frame.as_ptr() == other.frame.as_ptr()
            && self.frame.len() == other.frame.len()
            && Arc::ptr_eq(&self.pieces, &other.pieces)
            && (self.seq, self.encoding, self.epoch) == (other.seq, other.encoding, other.epoch)
            && of_all(self.place) == of_all(other.place)
            && self.latest == other.latest
            && self.also.len() + other.also.len() + 2 <= NODE_WORD_JOINS_MAX
    }

    /// Takes in the members of another welcome.
    pub(super) fn absorb(&mut self, other: &Self) {
        let StreamPlace { counts_from, device, .. } = other.place;
        let Self { shard, connection, join, .. } = *other;
        self.also.push(AlsoWelcomed { shard, connection, join, counts_from, device });
        self.also.extend(&other.also);
    }

    /// The welcomes of all members, each alone.
    pub(crate) fn apart(mut self) -> Vec<Self> {
        let also = std::mem::take(&mut self.also);
        let further = also.into_iter().map(|member| {
            let AlsoWelcomed { shard, connection, join, counts_from, device } = member;
            let place = StreamPlace { counts_from, device, ..self.place };
            Self { shard, connection, join, place, ..self.clone() }
        });
        let further: Vec<_> = further.collect();
        std::iter::once(self).chain(further).collect()
    }
}

/// The answer to a join the home refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JoinRefused {
    /// The shard of the connection on its node.
    pub(crate) shard: u16,
    /// The connection, as the join named it.
    pub(crate) connection: u64,
    /// Number of the join.
    pub(crate) join: u32,
    /// The reason, which the error frame names.
    pub(crate) code: JoinRefusal,
}

named! {
    /// The reason of a home, or of a branch, to refuse a join.
    pub(crate) enum JoinRefusal {
        /// The node is draining.
        Draining = "draining",
        /// The ladder refuses joins.
        JoinsRefused = "joins_refused",
        /// The node holds `ROOMS_MAX` rooms.
        RoomsFull = "rooms_full",
        /// No node orders the room.
        NoHome = "no_home",
        /// Another node orders the room: the branch asks again, and no device hears of it.
        NotHome = "not_home",
        /// Too many joins wait.
        Overloaded = "overloaded",
    }
}

/// The fate of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneSent {
    /// In the lane, or about to be, in order.
    Yes,
    /// A batch met a full lane: the segment will hear that a batch went by.
    Lapsed,
}

/// Capacity of the lanes between two shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneBounds {
    /// Entries of a frame lane.
    pub frames_max: usize,
    /// Entries of a control lane.
    pub control_max: usize,
}

impl Default for LaneBounds {
    fn default() -> Self {
        Self { frames_max: FRAME_LANE_FRAMES_MAX, control_max: CONTROL_LANE_ENTRIES_MAX }
    }
}

/// The lanes that begin or end at a shard.
#[derive(Debug)]
pub struct Lanes {
    pub(super) homes: HomeLanes,
    pub(super) residents: ResidentLanes,
}

/// The homes' side: a frame lane to each shard, and the control lane from each.
pub(super) type HomeLanes = LaneSide<Delivery, Control>;

/// The residents' side: a control lane to each shard, and the frame lane from each.
pub(super) type ResidentLanes = LaneSide<Control, Delivery>;

/// The homes or the residents of a shard, as their lanes see them.
#[derive(Debug)]
pub(super) struct LaneSide<Out, In> {
    /// The shard's own index.
    pub(super) index: usize,
    /// By shard. The end at `index` stays unused: `own` stands in for it.
    ends: Vec<LaneEnd<Out, In>>,
    /// Entries to the other side of this shard. The shard empties the queue in each turn, so one turn and the
    /// requests before it bound the length.
    own: VecDeque<Out>,
}

/// The lanes to one shard and from it, or the ways to the cluster's thread and back.
#[derive(Debug)]
pub(super) struct LaneEnd<Out, In> {
    out: Arc<ArrayQueue<Out>>,
    pub(super) back: Arc<ArrayQueue<In>>,
    /// Entries that found the lane full. The joins and refreshes that the other shard has asked for bound the
    /// answers among them. Past `CONTROL_WAITING_MAX` words to a home, joins are refused.
    waiting: VecDeque<Out>,
    /// Room -> the newest batch that found the frame lane full. Empty for residents, who send no batch.
    lapsed: BTreeMap<LapseOf, Lapse>,
    /// An entry was sent since the other side was last woken.
    pub(super) touched: bool,
}

/// The room of a batch, and the node that misses it; `None`: a shard of this node.
type LapseOf = (Option<NodeKey>, RoomName);

/// An entry of a lane in which batches may lapse.
pub(super) trait Frames: Sized {
    /// The delivery in the entry, and the node to which it goes. `None`: the entry is no delivery.
    fn delivery(&self) -> Option<(Option<NodeKey>, &Delivery)>;

    /// The entry that brings a delivery to a segment, or to a node.
    fn of(node: Option<NodeKey>, delivery: Delivery) -> Self;
}

impl Frames for Delivery {
    fn delivery(&self) -> Option<(Option<NodeKey>, &Delivery)> {
        Some((None, self))
    }

    fn of(_: Option<NodeKey>, delivery: Delivery) -> Self {
        delivery
    }
}

/// The newest batch of a room that found the frame lane full.
#[derive(Debug, Clone, Copy)]
struct Lapse {
    run: Run,
    seq: Seq,
}

/// From -> to -> the lane.
type Queues<T> = Vec<Vec<Arc<ArrayQueue<T>>>>;

/// The lanes between `shards` shards, by shard.
#[must_use]
pub fn mesh(shards: usize, bounds: LaneBounds) -> Vec<Lanes> {
    let frames = queues(shards, bounds.frames_max);
    let control = queues(shards, bounds.control_max);
    let lanes = |index| Lanes {
        homes: LaneSide::new(index, &frames, &control),
        residents: LaneSide::new(index, &control, &frames),
    };
    (0..shards).map(lanes).collect()
}

fn queues<T>(shards: usize, entries_max: usize) -> Queues<T> {
    let to_each = |_| (0..shards).map(|_| Arc::new(ArrayQueue::new(entries_max))).collect();
    (0..shards).map(to_each).collect()
}

impl<Out, In> LaneSide<Out, In> {
    fn new(index: usize, out: &Queues<Out>, back: &Queues<In>) -> Self {
        let end =
            |shard: usize| LaneEnd::new(Arc::clone(&out[index][shard]), Arc::clone(&back[shard][index]));
        Self { index, ends: (0..out.len()).map(end).collect(), own: VecDeque::new() }
    }

    /// Number of shards the lanes lead to, this one included.
    pub(super) fn shards(&self) -> usize {
        self.ends.len()
    }

    /// The next entry of the lane from `shard`.
    pub(super) fn next_from(&self, shard: usize) -> Option<In> {
        self.ends[shard].back.pop()
    }

    /// The next entry to the other side of this shard.
    pub(super) fn next_own(&mut self) -> Option<Out> {
        let next = self.own.pop_front();
        if next.is_none() {
            // Back to the begin of its memory. A queue that was long once would walk through all of that
            // memory again and again, and through the processor's cache: 20 000 cold rooms took 17 % longer.
            self.own.clear();
        }
        next
    }

    /// True if nothing waits to be sent, and nothing to be taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.own.is_empty() && self.ends.iter().all(LaneEnd::is_quiet)
    }

    /// True if `shard` has to be woken: an entry was sent to it since the last call.
    pub(super) fn take_touched(&mut self, shard: usize) -> bool {
        std::mem::take(&mut self.ends[shard].touched)
    }
}

impl HomeLanes {
    /// Sends to the frame lane of `shard`, behind all waiting entries.
    pub(super) fn send(&mut self, shard: usize, delivery: Delivery) -> LaneSent {
        if shard == self.index {
            // Not taken at once: a room may be in the middle of giving up its outputs.
            self.own.push_back(delivery);
            return LaneSent::Yes;
        }
        self.ends[shard].send(delivery)
    }

    /// Sends waiting entries, as far as the lanes take them. True if entries still wait.
    pub(super) fn pump(&mut self) -> bool {
        self.ends.iter_mut().fold(false, |is_stuck, end| is_stuck | (end.pump() || end.pump_gaps()))
    }
}

impl ResidentLanes {
    /// Sends to the control lane of `home`, behind all waiting entries.
    pub(super) fn tell(&mut self, home: usize, control: Control) {
        if home == self.index {
            self.own.push_back(control);
            return;
        }
        let end = &mut self.ends[home];
        end.waiting.push_back(control);
        end.pump();
    }

    /// True if so much waits for the control lane to `home` that joins are refused.
    pub(super) fn is_overloaded(&self, home: usize) -> bool {
        self.ends[home].is_overloaded()
    }

    /// Sends waiting entries, as far as the lanes take them. True if entries still wait.
    pub(super) fn pump(&mut self) -> bool {
        self.ends.iter_mut().fold(false, |is_stuck, end| is_stuck | end.pump())
    }
}

impl<Out, In> LaneEnd<Out, In> {
    pub(super) fn new(out: Arc<ArrayQueue<Out>>, back: Arc<ArrayQueue<In>>) -> Self {
        Self { out, back, waiting: VecDeque::new(), lapsed: BTreeMap::new(), touched: false }
    }

    /// True if nothing waits to be sent, and nothing to be taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.lapsed.is_empty() && self.back.is_empty()
    }

    /// True if so much waits that joins are refused.
    pub(super) fn is_overloaded(&self) -> bool {
        self.waiting.len() >= CONTROL_WAITING_MAX
    }

    /// Sends an entry. A full lane gives the entry back.
    fn push(&mut self, entry: Out) -> Result<(), Out> {
        self.out.push(entry)?;
        self.touched = true;
        Ok(())
    }

    /// Sends waiting entries. True if entries still wait.
    pub(super) fn pump(&mut self) -> bool {
        while let Some(entry) = self.waiting.pop_front() {
            if let Err(refused) = self.push(entry) {
                self.waiting.push_front(refused);
                return true;
            }
        }
        false
    }
}

impl<Out: Frames, In> LaneEnd<Out, In> {
    /// Sends an entry, behind all waiting ones. A batch that meets a full lane lapses.
    pub(super) fn send(&mut self, entry: Out) -> LaneSent {
        // The name is copied only while some batch has lapsed, which is rare.
        let batch_of = if self.lapsed.is_empty() { None } else { lapse_of(&entry).map(|(of, _)| of) };
        // An entry never overtakes one that waits: a welcome at seq 5 has to come before batch 6.
        let sent = if self.waiting.is_empty() { self.push(entry) } else { Err(entry) };
        match sent {
            Ok(()) => {
                // The batch itself shows the gap before it.
                batch_of.map(|of| self.lapsed.remove(&of));
            }
            Err(refused) => match lapse_of(&refused) {
                Some((of, lapse)) => {
                    self.lapsed.insert(of, lapse);
                    return LaneSent::Lapsed;
                }
                // Somebody waits for an answer, so an answer is kept.
                None => self.waiting.push_back(refused),
            },
        }
        LaneSent::Yes
    }

    /// Tells segments of batches that found the lane full. True if some are still untold.
    pub(super) fn pump_gaps(&mut self) -> bool {
        while let Some((of, lapse)) = self.lapsed.pop_first() {
            let said = HomeSaid::Gap { seq: lapse.seq };
            let gap = Delivery { room: of.1.clone(), run: lapse.run, said };
            if self.push(Out::of(of.0, gap)).is_err() {
                self.lapsed.insert(of, lapse);
                return true;
            }
        }
        false
    }
}

/// The batch of an entry, if it is one.
fn lapse_of<Out: Frames>(entry: &Out) -> Option<(LapseOf, Lapse)> {
    let (node, Delivery { room, run, said: HomeSaid::Level(level) }) = entry.delivery()? else { return None };
    Some(((node, room.clone()), Lapse { run: *run, seq: level.seq }))
}
