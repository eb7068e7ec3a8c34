//! The segments on a shard: found by room, in line for their turns, and their moments to look for late
//! members.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::shard::{Table, table};
use roomcast_core::fanout::segment::Segment;
use roomcast_core::room::id::{NameKey, RoomName, Run, Seq};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::{Counts, WriteCost};

/// The run of a segment whose room is not open, as far as this shard knows.
const CLOSED: Run = Run(0);

/// The segments on a shard. Indexed by their keys.
#[derive(Debug)]
pub(super) struct Segments {
    all: Slab<Placed>,
    key_of: Table<RoomName, u32>,
    /// Segments in line for a turn. Invariant: each segment marked `active` stands here, or has its turn. The
    /// key of a segment that ended or began anew may be left, and is skipped.
    pub(super) active: VecDeque<u32>,
    /// Moment to look for members that did not acknowledge in time -> segment.
    looks: BTreeSet<(Instant, u32)>,
}

/// A segment and what the shard keeps beside it.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) segment: Segment,
    /// The shard that orders the room.
    pub(super) home: usize,
    /// Joins on their way to the home: the segment stays until the last is answered.
    pub(super) joining: u32,
    /// The segment stands in line for a turn.
    pub(super) active: bool,
    /// The segment's entry in `looks`.
    look_at: Option<Instant>,
    /// The room is closed: members are told once the passes of earlier batches are over.
    pub(super) closing: bool,
    /// Counts of members the home does not have yet.
    pub(super) counts: Counts,
    pub(super) cost: WriteCost,
    /// Processor time of the present pass so far.
    spent: Duration,
    /// Members offered frames in the present pass.
    offered: u32,
    /// The segment had a pass since the strain was last weighed.
    pub(super) passed: bool,
}

impl Placed {
    /// True if neither a member nor a join on its way holds the segment.
    pub(super) fn is_empty(&self) -> bool {
        self.joining == 0 && self.segment.census().members() == 0
    }

    /// The window the room needs for the passes on this shard alone.
    pub(super) fn window(&self, rules: &RoomRules) -> Duration {
        rules.spacing(self.cost.pass(self.segment.census())).max(rules.gather)
    }

    /// A pass begins. The measured cost of the one before makes up a quarter of the smoothed cost.
    pub(super) fn pass_begins(&mut self, stretch_permille: u32) -> WriteCost {
        let spent = std::mem::take(&mut self.spent);
        let offered = std::mem::take(&mut self.offered);
        // A meter that stands still (a coarse clock, a bench) measures nothing.
        if offered > 0 && !spent.is_zero() {
            self.cost.per_member = (self.cost.per_member * 3 + spent / offered) / 4;
        }
        self.cost.stretch_permille = stretch_permille;
        self.cost
    }

    /// The present pass took a turn of this cost.
    pub(super) fn bear(&mut self, spent: Duration, offered: u32) {
        self.spent += spent;
        self.offered = self.offered.saturating_add(offered);
        self.passed = true;
    }

    /// The room has ended: the segment goes back to no life, without members.
    pub(super) fn end_life(&mut self) {
        let room = self.segment.room().clone();
        self.segment = Segment::new(room, CLOSED, Seq(0), None);
        self.closing = false;
        self.counts = Counts::default();
    }
}

impl Segments {
    pub(super) fn new(key: NameKey) -> Self {
        Self { all: Slab::new(), key_of: table(key), active: VecDeque::new(), looks: BTreeSet::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.all.iter().map(|(_, placed)| placed)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Placed> {
        self.all.iter_mut().map(|(_, placed)| placed)
    }

    /// The segment of a room, in whatever life.
    pub(super) fn find(&self, room: &RoomName) -> Option<u32> {
        self.key_of.get(room).copied()
    }

    /// The segment of a room in one life of the room, unless that life is ending here.
    pub(super) fn find_in(&self, room: &RoomName, run: Run) -> Option<u32> {
        self.find(room).filter(|key| self[*key].segment.run() == run && !self[*key].closing)
    }

    pub(super) fn placed(&mut self, key: u32) -> Option<&mut Placed> {
        self.all.get_mut(key as usize)
    }

    /// A segment for a room that has none here. `home` is the shard that orders the room.
    pub(super) fn place(&mut self, room: &RoomName, home: usize) -> u32 {
        let key = self.all.insert(Placed {
            segment: Segment::new(room.clone(), CLOSED, Seq(0), None),
            home,
            joining: 0,
            active: false,
            look_at: None,
            closing: false,
            counts: Counts::default(),
            cost: WriteCost::default(),
            spent: Duration::ZERO,
            offered: 0,
            passed: false,
        });
        let key = u32::try_from(key).expect("a shard has fewer than 2^32 segments");
        self.key_of.insert(room.clone(), key);
        key
    }

    pub(super) fn remove(&mut self, key: u32) -> Placed {
        let placed = self.all.remove(key as usize);
        placed.look_at.map(|at| self.looks.remove(&(at, key)));
        self.key_of.remove(placed.segment.room());
        placed
    }

    /// Puts a segment in line for a turn, if a turn would do anything.
    pub(super) fn activate(&mut self, key: u32) {
        let placed = &mut self.all[key as usize];
        if !placed.active && placed.segment.is_busy() {
            placed.active = true;
            self.active.push_back(key);
        }
    }

    /// The turn of a segment is over: back in line if another would do something.
    pub(super) fn turn_is_over(&mut self, key: u32) {
        let placed = &mut self.all[key as usize];
        placed.active = placed.segment.is_busy();
        if placed.active {
            self.active.push_back(key);
        }
    }

    /// Keeps the moment at which a segment wants to look for late members.
    pub(super) fn note_look(&mut self, key: u32) {
        let placed = &mut self.all[key as usize];
        let look_at = placed.segment.poll_look();
        let before = std::mem::replace(&mut placed.look_at, look_at);
        // Most turns leave the moment as it was: no change of the tree for those.
        if before != look_at {
            before.map(|at| self.looks.remove(&(at, key)));
            look_at.map(|at| self.looks.insert((at, key)));
        }
    }

    /// The next moment to look for late members, and the segment to look at.
    pub(super) fn next_look(&self) -> Option<(Instant, u32)> {
        self.looks.first().copied()
    }

    pub(super) fn check_invariants(&self) {
        for placed in self.iter() {
            placed.segment.check_invariants();
            assert_eq!(placed.active, placed.segment.is_busy(), "a busy segment stands in line for its turn");
        }
        assert_eq!(self.key_of.len(), self.all.len(), "each segment is found by its room");
    }
}

impl Index<u32> for Segments {
    type Output = Placed;

    fn index(&self, key: u32) -> &Placed {
        &self.all[key as usize]
    }
}

impl IndexMut<u32> for Segments {
    fn index_mut(&mut self, key: u32) -> &mut Placed {
        &mut self.all[key as usize]
    }
}
