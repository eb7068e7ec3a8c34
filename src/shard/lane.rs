//! The lanes between shards: bounded FIFOs that are never awaited. Per ordered pair there is one for what a home sends
//! to segments (*frame lane*) and one for what segments ask of a home (*control lane*).
//!
//! A full frame lane costs a batch, never an answer: the segment is told later that a batch went by, and heals by
//! refresh. A full control lane costs nothing: entries wait on the shard that sends them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use roomcast_core::fanout::segment::{Level, RefreshFrame, StreamPlace};
use roomcast_core::limits::{CONTROL_LANE_ENTRIES_MAX, CONTROL_WAITING_MAX, FRAME_LANE_FRAMES_MAX};
use roomcast_core::room::id::{Encoding, Epoch, RoomName, Run, Seq};
use roomcast_core::room::{CarryWant, RefreshWant, SegmentSaid};

/// One entry of a control lane: a segment speaks to the home of its room.
#[derive(Debug)]
pub struct Control {
    /// The room of the segment.
    pub room: RoomName,
    /// The life of the room that the segment knows; `None` for a join, which opens the room.
    pub run: Option<Run>,
    /// The segment's words.
    pub said: SegmentSaid,
}

/// One entry of a frame lane: a home speaks to a shard that holds members of its room.
#[derive(Debug)]
pub struct Delivery {
    /// The room of the home.
    pub room: RoomName,
    /// The life of the room.
    pub run: Run,
    /// The home's words.
    pub said: HomeSaid,
}

/// The words of a home to a segment of its room.
#[derive(Debug)]
pub enum HomeSaid {
    /// A batch.
    Level(Arc<Level>),
    /// The answer to a join: the connection is a member when its shard takes this.
    Welcome(Box<Welcome>),
    /// The answer to a join that can't be had.
    Refused {
        /// The connection, as it came with the join.
        connection: u64,
        /// Number of the join, as it came.
        join: u32,
        /// Reason for the error frame.
        code: &'static str,
    },
    /// The answer to [`SegmentSaid::Refresh`].
    Refresh {
        /// The state that was asked for.
        want: RefreshWant,
        /// `None`: the members missed more than the account reaches.
        frame: Option<Box<RefreshFrame>>,
    },
    /// The answer to [`SegmentSaid::Carry`].
    Carry {
        /// The state that was asked for.
        want: CarryWant,
        /// The seq that the frame repeats.
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
pub struct Welcome {
    /// The member holds everything up to this batch.
    pub seq: Seq,
    /// The connection, as it came with the join.
    pub connection: u64,
    /// Number of the join, as it came.
    pub join: u32,
    /// Encoding of the member's frames.
    pub encoding: Encoding,
    /// The life of the reliable stream; `None` while it is not known.
    pub epoch: Option<Epoch>,
    /// The member's place in the reliable stream.
    pub place: StreamPlace,
    /// The welcome frame.
    pub frame: Bytes,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the lane, or will be, in order.
    Yes,
    /// It was a batch and the lane is full: the segment will hear that it went by.
    Lapsed,
}

/// One shard's side of the lanes to and from one other shard.
#[derive(Debug)]
pub struct Peer {
    frames_out: Arc<ArrayQueue<Delivery>>,
    frames_in: Arc<ArrayQueue<Delivery>>,
    control_out: Arc<ArrayQueue<Control>>,
    control_in: Arc<ArrayQueue<Control>>,
    /// Answers that found the frame lane full. Bounded by the joins and refreshes the other shard has asked for.
    frames_waiting: VecDeque<Delivery>,
    /// Rooms whose newest batch found the frame lane full.
    lapsed: BTreeMap<RoomName, (Run, Seq)>,
    /// Entries that found the control lane full; past `CONTROL_WAITING_MAX` joins are refused.
    control_waiting: VecDeque<Control>,
    /// Something was sent since the other shard was last woken.
    touched: bool,
}

/// How much the lanes hold.
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

/// The lanes between `shards` shards: for each shard its peers by index, itself included (unused).
#[must_use]
pub fn mesh(shards: usize, bounds: LaneBounds) -> Vec<Vec<Peer>> {
    let queues =
        |_| (Arc::new(ArrayQueue::new(bounds.frames_max)), Arc::new(ArrayQueue::new(bounds.control_max)));
    let lanes: Vec<Vec<_>> = (0..shards).map(|_| (0..shards).map(queues).collect()).collect();
    let peer = |from: usize, to: usize| Peer {
        frames_out: Arc::clone(&lanes[from][to].0),
        frames_in: Arc::clone(&lanes[to][from].0),
        control_out: Arc::clone(&lanes[from][to].1),
        control_in: Arc::clone(&lanes[to][from].1),
        frames_waiting: VecDeque::new(),
        lapsed: BTreeMap::new(),
        control_waiting: VecDeque::new(),
        touched: false,
    };
    (0..shards).map(|from| (0..shards).map(|to| peer(from, to)).collect()).collect()
}

impl Peer {
    /// Sends to the frame lane, behind what waits for it.
    pub fn send(&mut self, delivery: Delivery) -> Sent {
        let refused = if self.frames_waiting.is_empty() { self.push(delivery) } else { Some(delivery) };
        match refused {
            None => Sent::Yes,
            Some(Delivery { room, run, said: HomeSaid::Level(level) }) => {
                self.lapsed.insert(room, (run, level.seq));
                Sent::Lapsed
            }
            Some(answer) => {
                self.frames_waiting.push_back(answer);
                Sent::Yes
            }
        }
    }

    /// Sends to the control lane, behind what waits for it.
    pub fn tell(&mut self, control: Control) {
        self.control_waiting.push_back(control);
        self.pump_control();
    }

    /// Whether so much waits for the control lane that joins are to be refused.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.control_waiting.len() >= CONTROL_WAITING_MAX
    }

    /// Sends what waited, as far as the lanes take it. Whether something still waits.
    pub fn pump(&mut self) -> bool {
        self.pump_control();
        while let Some(waiting) = self.frames_waiting.pop_front() {
            if let Some(refused) = self.push(waiting) {
                self.frames_waiting.push_front(refused);
                return true;
            }
        }
        while let Some((room, (run, seq))) = self.lapsed.pop_first() {
            if self.push(Delivery { room: room.clone(), run, said: HomeSaid::Gap { seq } }).is_some() {
                self.lapsed.insert(room, (run, seq));
                return true;
            }
        }
        !self.control_waiting.is_empty()
    }

    /// What came on the frame lane.
    #[must_use]
    pub fn next_delivery(&self) -> Option<Delivery> {
        self.frames_in.pop()
    }

    /// What came on the control lane.
    #[must_use]
    pub fn next_control(&self) -> Option<Control> {
        self.control_in.pop()
    }

    /// Whether nothing waits to be sent, and nothing to be taken.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.frames_waiting.is_empty()
            && self.lapsed.is_empty()
            && self.control_waiting.is_empty()
            && self.frames_in.is_empty()
            && self.control_in.is_empty()
    }

    /// Whether the other shard has to be woken, since this was last asked.
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    fn pump_control(&mut self) {
        while let Some(control) = self.control_waiting.pop_front() {
            if let Err(refused) = self.control_out.push(control) {
                self.control_waiting.push_front(refused);
                return;
            }
            self.touched = true;
        }
    }

    fn push(&mut self, delivery: Delivery) -> Option<Delivery> {
        let is_batch = matches!(delivery.said, HomeSaid::Level(_));
        let batch_of = (is_batch && !self.lapsed.is_empty()).then(|| delivery.room.clone());
        let refused = self.frames_out.push(delivery).err();
        if refused.is_none() {
            self.touched = true;
            if let Some(room) = batch_of {
                self.lapsed.remove(&room); // The batch itself shows the gap before it.
            }
        }
        refused
    }
}
