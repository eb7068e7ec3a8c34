//! The residents of a shard: segments, and the connections whose members stand in them.
//!
//! Residents know nothing of rooms but their names and runs. They hear homes through frame lanes and answer
//! through control lanes.

pub mod connection;

mod acks;
mod close;
mod connections;
mod devices;
mod joins;
mod moves;
mod pass;
mod segments;
mod strain;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::connection::{Deferred, Socket};
use self::connections::Connections;
use self::moves::HomelessNewcomer;
use self::pass::SegmentTurn;
use self::segments::Segments;
use self::strain::Strain;
use super::lane::{Control, Delivery, HomeSaid, ResidentLanes};
use super::{Plan, TURN_ENTRIES_MAX};
use crate::auth::DeviceKeys;
use crate::metrics::tally::{Holdings, Tally};
use roomcast_core::fanout::segment::{Level, RefreshFrame, Segment};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Epoch, RoomName, Run};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::receipt::{Acks, SegmentReceipt};
use roomcast_core::room::{Counts, RefreshWant, SegmentSaid};
use roomcast_core::wire::close::CloseReason;

/// The segments and connections of a shard.
#[derive(Debug)]
pub struct Residents<S> {
    plan: Plan,
    pub(super) lanes: ResidentLanes,
    segments: Segments,
    connections: Connections<S>,
    strain: Strain,
    /// Turns of segments since the meter was read. Empty between two turns of the shard.
    turns: Vec<SegmentTurn>,
    /// Connections with deferred joins to look at: of moved rooms, or given back for want of a home. At most one entry
    /// for each such join.
    moving: VecDeque<u64>,
    /// Room without a home -> connections with a join that waits for one. Invariant: exactly those.
    homeless: BTreeMap<RoomName, BTreeSet<u64>>,
    /// Newcomers among these, the first to be refused in front: all wait as long.
    newcomers: VecDeque<HomelessNewcomer>,
    /// Connections from this index on have still to be told to go; `None` before the farewell.
    farewell: Option<usize>,
    pub(super) tally: Tally,
}

impl<S: Socket> Residents<S> {
    pub(super) fn new(plan: Plan, lanes: ResidentLanes, now: Instant) -> Self {
        Self {
            strain: Strain::new(&plan.rules, now),
            segments: Segments::new(plan.home_key),
            plan,
            lanes,
            connections: Connections::new(now),
            turns: Vec::new(),
            moving: VecDeque::new(),
            homeless: BTreeMap::new(),
            newcomers: VecDeque::new(),
            farewell: None,
            tally: Tally::default(),
        }
    }

    /// The acknowledgements of a message by members on this shard; `None`: the segment counts none.
    #[must_use]
    pub fn acks(&self, room: &RoomName, epoch: Epoch, offset: u64) -> Option<Acks> {
        self.segment_in(room, epoch)?.acks(offset).cloned()
    }

    /// This shard's part of a receipt; `None`: no member here knows the stream. Walks the members: for a
    /// publisher's question, not for a turn.
    #[must_use]
    pub fn receipt(&self, room: &RoomName, epoch: Epoch, offset: u64) -> Option<SegmentReceipt> {
        let segment = self.segment_in(room, epoch)?;
        let acks = segment.acks(offset).cloned().unwrap_or_default();
        Some(SegmentReceipt { acks, devices: segment.devices_with(offset) })
    }

    fn segment_in(&self, room: &RoomName, epoch: Epoch) -> Option<&Segment> {
        let segment = &self.segments[self.segments.find(room)?].segment;
        (segment.epoch() == Some(epoch)).then_some(segment)
    }

    /// This shard's counts of a room's members, with the life of the room.
    #[must_use]
    pub fn counts(&self, room: &RoomName) -> Option<(Run, Counts)> {
        let placed = &self.segments[self.segments.find(room)?];
        Some((placed.segment.run(), placed.counts))
    }

    /// Bytes owed to devices, welcomes and history included. Walks waiting connections: for every now and then,
    /// not for a turn.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        let owed = self.connections.waiting().map(|(_, connection)| connection.owed_bytes() as u64);
        owed.sum::<u64>() + self.connections.history_bytes()
    }

    /// True if no connection is left.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.connections.len() == 0
    }

    /// True if a pass over the room's segment is under way.
    #[must_use]
    pub fn is_passing(&self, room: &RoomName) -> bool {
        self.segments.find(room).is_some_and(|key| self.segments[key].segment.is_passing())
    }

    /// True if any segment wants a turn.
    pub(super) fn is_passing_somewhere(&self) -> bool {
        !self.segments.active.is_empty()
    }

    /// The residents' part of the holdings.
    pub(super) fn holdings(&self) -> Holdings {
        let behind = self.connections.waiting().filter(|(_, connection)| connection.is_behind());
        Holdings {
            connections: self.connections.len() as u64,
            members: self.segments.iter().map(|placed| placed.segment.census().members()).sum(),
            overdue: self.segments.iter().map(|placed| placed.segment.overdue()).sum(),
            waiting: self.connections.waiting().count() as u64,
            behind: behind.count() as u64,
            passes_permille: self.strain.permille.into(),
            stretch_permille: self.strain.stretch_permille.into(),
            window_needed: self.strain.window_needed(),
            ..Holdings::default()
        }
    }

    /// The next deadline of a connection or segment; far away if there is none.
    pub(super) fn poll_deadline(&self) -> Instant {
        let far = self.connections.next_sweep + Duration::from_secs(3600);
        let look = self.segments.next_look().map(|(at, _)| at);
        [look, self.connections.poll_deadline()].into_iter().flatten().fold(far, Instant::min)
    }

    /// Takes over the node's rules, and the keys of tokens that devices send from now on.
    pub(super) fn follow(&mut self, rules: RoomRules, device_keys: DeviceKeys) {
        self.plan.rules = rules;
        self.plan.device_keys = device_keys;
    }

    /// Begins to say goodbye to every connection.
    pub(super) fn bid_farewell(&mut self) {
        self.farewell = Some(0);
    }

    /// True if no pass is under way, no member waits for a refresh, and nothing is on a lane.
    pub(super) fn is_flushed(&self) -> bool {
        self.segments.active.is_empty()
            && self.moving.is_empty()
            && self.segments.iter().all(|placed| !placed.segment.awaits_refresh())
            && self.lanes.is_quiet()
    }

    pub(super) fn check_invariants(&self) {
        self.segments.check_invariants();
        self.connections.check_invariants();
        assert!(self.turns.is_empty(), "each turn of a segment has borne its cost");
        for (room, connections) in &self.homeless {
            assert!(!connections.is_empty());
            for key in connections {
                let index = self.connections.find(*key).expect("a connection that waits for a home lives");
                let is_one = |join: &Deferred| join.is_homeless && join.room == *room;
                assert!(self.connections[index].deferred.iter().any(is_one), "the join waits");
            }
        }
    }

    /// Takes a turn's worth of entries off each frame lane. True if more are there.
    pub(super) fn take_from_lanes(&mut self, now: Now) -> bool {
        let mut busy = false;
        for shard in 0..self.lanes.shards() {
            for taken in 1..=TURN_ENTRIES_MAX {
                let Some(delivery) = self.lanes.next_from(shard) else { break };
                self.take_delivery(delivery, now);
                busy |= taken == TURN_ENTRIES_MAX;
            }
        }
        busy
    }

    /// Takes the words of a home.
    pub(super) fn take_delivery(&mut self, delivery: Delivery, now: Now) {
        let Delivery { room, run, said } = delivery;
        let key = self.segments.find_in(&room, run);
        match (said, key) {
            (HomeSaid::Welcome(welcome), _) => self.take_welcome(&room, run, &welcome, now),
            (HomeSaid::Refused(refused), _) => self.take_refusal(&room, refused, now),
            (HomeSaid::GaveBack(join), _) => self.take_back(room, &join),
            (HomeSaid::Level(level), key) => self.take_level(room, run, key, level),
            (HomeSaid::Refresh { want, frame }, Some(key)) => {
                self.take_refresh(key, want, frame.map(|frame| *frame), now);
            }
            (HomeSaid::Carry { want, seq, frame, floor }, Some(key)) => {
                self.segments[key].segment.carried(want, seq, frame, floor);
                self.segments.activate(key);
            }
            (HomeSaid::Gap { seq }, Some(key)) => {
                self.segments[key].segment.gap(seq);
                self.segments.activate(key);
            }
            (HomeSaid::StreamChanged, Some(key)) => {
                self.close_members(key, CloseReason::StreamChanged, now);
            }
            (HomeSaid::Pause { attempt }, key) => {
                // Without members the home awaits an answer as well.
                let roll = key.map_or_else(|| Some(Box::default()), |key| self.segments[key].segment.roll());
                self.tell(room, run, SegmentSaid::Enrolled { attempt, roll });
            }
            (HomeSaid::Moved, key) => self.take_move(&room, run, key),
            (HomeSaid::Closed, Some(key)) => {
                self.segments[key].closing = true;
                self.finish_closing(key, now);
            }
            // Words between a home and a branch.
            (HomeSaid::Resumed | HomeSaid::Adopted { .. }, _) => {}
            // This life of the room has ended here, and nobody waits for a word about it.
            (_, None) => {}
        }
    }

    fn take_level(&mut self, room: RoomName, run: Run, key: Option<u32>, level: Arc<Level>) {
        if let Some(key) = key
            && self.segments[key].segment.arrive(level)
        {
            self.segments.activate(key);
            return;
        }
        // Every member here holds the batch, or the segment is gone. The home counts on a word all the same:
        // a room with four batches before a segment stops cutting.
        self.tell(room, run, SegmentSaid::Taken { batches: 1, cost: None });
    }

    fn take_refresh(&mut self, key: u32, want: RefreshWant, frame: Option<RefreshFrame>, now: Now) {
        let lost = self.segments[key].segment.refreshed(want, frame);
        self.segments.activate(key);
        self.send_wants(key);
        for index in lost {
            self.close(index, CloseReason::Behind, now);
        }
    }

    /// Drops a segment unless it has members or joins on their way. Its counts go to the home.
    fn drop_empty_segment(&mut self, key: u32) {
        if !self.segments[key].is_empty() {
            return;
        }
        self.hand_over_tallies(key);
        self.hand_over_counts(key);
        let segment = self.segments.remove(key).segment;
        let batches = segment.queued_batches();
        // Batches that nobody is left to write would be before the home for ever.
        if batches > 0 {
            self.tell(segment.room().clone(), segment.run(), SegmentSaid::Taken { batches, cost: None });
        }
    }

    /// Sends the requests a segment has for its home.
    fn send_wants(&mut self, key: u32) {
        let segment = &mut self.segments[key].segment;
        let wants = segment.take_wants();
        let carries = segment.take_carry_wants();
        for want in wants {
            self.tell_home(key, SegmentSaid::Refresh(want));
        }
        for want in carries {
            self.tell_home(key, SegmentSaid::Carry(want));
        }
    }

    /// Sends the words of a segment to the home of its room.
    fn tell_home(&mut self, key: u32, said: SegmentSaid) {
        let placed = &self.segments[key];
        let room = placed.segment.room().clone();
        let control = Control { room, run: Some(placed.segment.run()), said };
        self.lanes.tell(placed.home, control);
    }

    /// Sends words about one life of a room to its home; the segment may be gone.
    fn tell(&mut self, room: RoomName, run: Run, said: SegmentSaid) {
        let home = self.plan.home(&room);
        self.lanes.tell(home, Control { room, run: Some(run), said });
    }
}
