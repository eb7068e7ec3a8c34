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

use roomcast_core::fanout::segment::{Level, RefreshFrame, StreamPlace};
use roomcast_core::limits::{CONTROL_LANE_ENTRIES_MAX, CONTROL_WAITING_MAX, FRAME_LANE_FRAMES_MAX};
use roomcast_core::room::id::{Encoding, Epoch, RoomName, Run, Seq};
use roomcast_core::room::{CarryWant, RefreshWant, SegmentSaid};

/// An entry of a control lane: a segment speaks to the home of its room.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) room: RoomName,
    /// The life of the room, as the segment knows it; `None` for a join, which opens the room.
    pub(super) run: Option<Run>,
    pub(super) said: SegmentSaid,
}

/// An entry of a frame lane: a home speaks to a shard that holds members of its room.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) room: RoomName,
    /// The life of the room.
    pub(super) run: Run,
    pub(super) said: HomeSaid,
}

/// The words of a home to a segment of its room.
#[derive(Debug)]
pub(super) enum HomeSaid {
    /// A batch.
    Level(Arc<Level>),
    /// The answer to a join: the connection becomes a member when its shard takes the welcome.
    Welcome(Box<Welcome>),
    /// The answer to a join the home refuses.
    Refused(JoinRefused),
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
}

/// The answer to a join.
#[derive(Debug)]
pub(super) struct Welcome {
    /// The member holds everything up to this batch.
    pub(super) seq: Seq,
    /// The connection, as the join named it.
    pub(super) connection: u64,
    /// Number of the join.
    pub(super) join: u32,
    /// Encoding of the member's frames.
    pub(super) encoding: Encoding,
    /// The life of the reliable stream; `None` while the stream is unknown.
    pub(super) epoch: Option<Epoch>,
    /// The member's place in the reliable stream.
    pub(super) place: StreamPlace,
    /// The welcome frame.
    pub(super) frame: Bytes,
    /// Older history, to follow in pieces: the newest first.
    pub(super) pieces: Arc<[Bytes]>,
}

/// The answer to a join the home refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct JoinRefused {
    /// The connection, as the join named it.
    pub(super) connection: u64,
    /// Number of the join.
    pub(super) join: u32,
    /// Reason for the error frame.
    pub(super) code: &'static str,
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
#[derive(Debug)]
pub(super) struct HomeLanes {
    index: usize,
    /// By shard. The end at `index` stays unused: `own` stands in for it.
    ends: Vec<HomeEnd>,
    /// Deliveries to residents of this shard. The shard empties the queue in each turn, so one turn and the
    /// requests before it bound the length.
    own: VecDeque<Delivery>,
}

#[derive(Debug)]
struct HomeEnd {
    frames_out: Arc<ArrayQueue<Delivery>>,
    control_in: Arc<ArrayQueue<Control>>,
    /// Answers that found the frame lane full. The joins and refreshes the other shard has asked for
    /// bound them.
    frames_waiting: VecDeque<Delivery>,
    /// Room -> the newest batch that found the frame lane full.
    lapsed: BTreeMap<RoomName, Lapse>,
    /// An entry was sent since the other shard was last woken.
    touched: bool,
}

/// The newest batch of a room that found the frame lane full.
#[derive(Debug, Clone, Copy)]
struct Lapse {
    run: Run,
    seq: Seq,
}

/// The residents' side: a control lane to each shard, and the frame lane from each.
#[derive(Debug)]
pub(super) struct ResidentLanes {
    index: usize,
    /// By shard. The end at `index` stays unused: `own` stands in for it.
    ends: Vec<ResidentEnd>,
    /// Words to homes of this shard. The shard empties the queue in each turn.
    own: VecDeque<Control>,
}

#[derive(Debug)]
struct ResidentEnd {
    control_out: Arc<ArrayQueue<Control>>,
    frames_in: Arc<ArrayQueue<Delivery>>,
    /// Entries that found the control lane full; past `CONTROL_WAITING_MAX` joins are refused.
    control_waiting: VecDeque<Control>,
    /// An entry was sent since the other shard was last woken.
    touched: bool,
}

/// The lanes between `shards` shards, by shard.
#[must_use]
pub fn mesh(shards: usize, bounds: LaneBounds) -> Vec<Lanes> {
    let by_pair = |_| (0..shards).map(|_| Pair::new(bounds)).collect();
    // From -> to.
    let pairs: Vec<Vec<Pair>> = (0..shards).map(by_pair).collect();
    let home_end = |from: usize, to: usize| HomeEnd {
        frames_out: Arc::clone(&pairs[from][to].frames),
        control_in: Arc::clone(&pairs[to][from].control),
        frames_waiting: VecDeque::new(),
        lapsed: BTreeMap::new(),
        touched: false,
    };
    let resident_end = |from: usize, to: usize| ResidentEnd {
        control_out: Arc::clone(&pairs[from][to].control),
        frames_in: Arc::clone(&pairs[to][from].frames),
        control_waiting: VecDeque::new(),
        touched: false,
    };
    let lanes = |index: usize| Lanes {
        homes: HomeLanes {
            index,
            ends: (0..shards).map(|to| home_end(index, to)).collect(),
            own: VecDeque::new(),
        },
        residents: ResidentLanes {
            index,
            ends: (0..shards).map(|to| resident_end(index, to)).collect(),
            own: VecDeque::new(),
        },
    };
    (0..shards).map(lanes).collect()
}

/// Both lanes from one shard to another.
struct Pair {
    frames: Arc<ArrayQueue<Delivery>>,
    control: Arc<ArrayQueue<Control>>,
}

impl Pair {
    fn new(bounds: LaneBounds) -> Self {
        Self {
            frames: Arc::new(ArrayQueue::new(bounds.frames_max)),
            control: Arc::new(ArrayQueue::new(bounds.control_max)),
        }
    }
}

impl HomeLanes {
    /// Number of shards the lanes lead to, this one included.
    pub(super) fn shards(&self) -> usize {
        self.ends.len()
    }

    /// Sends to the frame lane of `shard`, behind all waiting entries.
    pub(super) fn send(&mut self, shard: usize, delivery: Delivery) -> LaneSent {
        if shard == self.index {
            // Not taken at once: a room may be in the middle of giving up its outputs.
            self.own.push_back(delivery);
            return LaneSent::Yes;
        }
        self.ends[shard].send(delivery)
    }

    /// The next entry of the control lane from `shard`.
    pub(super) fn next_from(&self, shard: usize) -> Option<Control> {
        self.ends[shard].control_in.pop()
    }

    /// The next delivery to the residents of this shard.
    pub(super) fn next_own(&mut self) -> Option<Delivery> {
        self.own.pop_front()
    }

    /// Sends waiting entries, as far as the lanes take them. True if entries still wait.
    pub(super) fn pump(&mut self) -> bool {
        let mut is_stuck = false;
        for end in &mut self.ends {
            is_stuck |= end.pump();
        }
        is_stuck
    }

    /// True if nothing waits to be sent, and nothing to be taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.own.is_empty()
            && self.ends.iter().all(|end| {
                end.frames_waiting.is_empty() && end.lapsed.is_empty() && end.control_in.is_empty()
            })
    }

    /// True if `shard` has to be woken: an entry was sent to it since the last call.
    pub(super) fn take_touched(&mut self, shard: usize) -> bool {
        std::mem::take(&mut self.ends[shard].touched)
    }
}

impl HomeEnd {
    fn send(&mut self, delivery: Delivery) -> LaneSent {
        // A delivery never overtakes one that waits: a welcome at seq 5 has to come before batch 6.
        let refused = if self.frames_waiting.is_empty() { self.push(delivery) } else { Some(delivery) };
        match refused {
            None => LaneSent::Yes,
            Some(Delivery { room, run, said: HomeSaid::Level(level) }) => {
                self.lapsed.insert(room, Lapse { run, seq: level.seq });
                LaneSent::Lapsed
            }
            // Somebody waits for an answer, so an answer is kept.
            Some(answer) => {
                self.frames_waiting.push_back(answer);
                LaneSent::Yes
            }
        }
    }

    fn pump(&mut self) -> bool {
        while let Some(waiting) = self.frames_waiting.pop_front() {
            if let Some(refused) = self.push(waiting) {
                self.frames_waiting.push_front(refused);
                return true;
            }
        }
        while let Some((room, lapse)) = self.lapsed.pop_first() {
            let gap = Delivery { room: room.clone(), run: lapse.run, said: HomeSaid::Gap { seq: lapse.seq } };
            if self.push(gap).is_some() {
                self.lapsed.insert(room, lapse);
                return true;
            }
        }
        false
    }

    fn push(&mut self, delivery: Delivery) -> Option<Delivery> {
        let is_batch = matches!(delivery.said, HomeSaid::Level(_));
        // The name is copied only while some batch has lapsed, which is rare.
        let batch_of = (is_batch && !self.lapsed.is_empty()).then(|| delivery.room.clone());
        let refused = self.frames_out.push(delivery).err();
        if refused.is_none() {
            self.touched = true;
            if let Some(room) = batch_of {
                // The batch itself shows the gap before it.
                self.lapsed.remove(&room);
            }
        }
        refused
    }
}

impl ResidentLanes {
    /// Number of shards the lanes lead to, this one included.
    pub(super) fn shards(&self) -> usize {
        self.ends.len()
    }

    /// Sends to the control lane of `home`, behind all waiting entries.
    pub(super) fn tell(&mut self, home: usize, control: Control) {
        if home == self.index {
            self.own.push_back(control);
            return;
        }
        let end = &mut self.ends[home];
        end.control_waiting.push_back(control);
        end.pump();
    }

    /// True if so much waits for the control lane to `home` that joins are refused.
    pub(super) fn is_overloaded(&self, home: usize) -> bool {
        self.ends[home].control_waiting.len() >= CONTROL_WAITING_MAX
    }

    /// The next entry of the frame lane from `shard`.
    pub(super) fn next_from(&self, shard: usize) -> Option<Delivery> {
        self.ends[shard].frames_in.pop()
    }

    /// The next words to the homes of this shard.
    pub(super) fn next_own(&mut self) -> Option<Control> {
        self.own.pop_front()
    }

    /// Sends waiting entries, as far as the lanes take them. True if entries still wait.
    pub(super) fn pump(&mut self) -> bool {
        let mut is_stuck = false;
        for end in &mut self.ends {
            end.pump();
            is_stuck |= !end.control_waiting.is_empty();
        }
        is_stuck
    }

    /// True if nothing waits to be sent, and nothing to be taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.own.is_empty()
            && self.ends.iter().all(|end| end.control_waiting.is_empty() && end.frames_in.is_empty())
    }

    /// True if `shard` has to be woken: an entry was sent to it since the last call.
    pub(super) fn take_touched(&mut self, shard: usize) -> bool {
        std::mem::take(&mut self.ends[shard].touched)
    }
}

impl ResidentEnd {
    fn pump(&mut self) {
        while let Some(control) = self.control_waiting.pop_front() {
            if let Err(refused) = self.control_out.push(control) {
                self.control_waiting.push_front(refused);
                return;
            }
            self.touched = true;
        }
    }
}
